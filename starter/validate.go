package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"bellhop"
)

const validateExample = `bellhop validate --verb delete -f - <<EOF
{"tenant_id": "acme", "resource": "web", "provider": "simulated"}
EOF`

func (a *app) validate() *cobra.Command {
	var file, verb, kind string
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check an operation's file without starting anything",
		Long: `Check an operation's file without starting anything. Everything that is wrong is named at once, one fault a line with
its path, and the exit code is 2.

It asks nobody, Temporal included. provider_config is checked as the type of provider does that the entry is named after;
say --provider-type when it has another name. What only a worker knows is checked when the operation starts: whether the
provider and the targets are configured, and what they think of the callbacks' addresses.`,
		Example: validateExample,
		GroupID: groupStart,
		Args:    none,
		RunE: a.act(func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usage(cmd, errors.New("say which operation: -f FILE, or -f - for stdin"))
			}
			if verb != "" && !slices.Contains(bellhop.Verbs(), bellhop.Verb(verb)) {
				return usage(cmd, fmt.Errorf("--verb %q is none of provision, update, delete", verb))
			}
			if kind != "" && providerTypes()[kind] == nil {
				return usage(cmd, fmt.Errorf("--provider-type %q is none of %s", kind, typeNames()))
			}
			in, err := a.read(cmd.Context(), file)
			if err != nil {
				return err
			}
			op, err := in.check("", bellhop.Verb(verb), false)
			of := kind
			if of == "" {
				of = op.Provider
			}
			known := providerTypes()[of] != nil
			if known {
				err = in.checkAsProvider(op, of, err)
			}
			if err != nil {
				return err
			}
			a.hint(op)
			if !known {
				fmt.Fprintf(a.stderr, "not checked is what only the provider %s knows, such as provider_config: say --provider-type, one of %s\n",
					op.Provider, typeNames())
			}
			fmt.Fprintf(a.stdout, "%s is valid: %s %s/%s on %s\n", in.name, op.Verb, op.TenantID, op.Resource, op.Provider)
			return nil
		}),
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`file` with the operation, YAML or JSON; - is stdin")
	cmd.Flags().StringVar(&verb, "verb", "", "`verb` to check it for: provision, update, delete (default: the file's operation_type, or provision)")
	cmd.Flags().StringVar(&kind, "provider-type", "", "`type` of the provider: "+typeNames()+" (default: what its entry is named after)")
	choices(cmd, "verb", bellhop.Verbs()...)
	choices(cmd, "provider-type", slices.Sorted(maps.Keys(providerTypes()))...)
	return cmd
}
