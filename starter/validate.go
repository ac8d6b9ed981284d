package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"bellhop"
)

const validateExample = `bellhop validate --verb delete -f - <<EOF
{"tenant_id": "acme", "resource": "web", "provider": "simulated"}
EOF`

func (a *app) validate() *cobra.Command {
	var file, verb string
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check an operation's file without starting anything",
		Long: `Check an operation's file without starting anything. Everything that is wrong is named at once, one fault a line with
its path, and the exit code is 2.

It asks nobody, Temporal included. What only a worker knows is checked when the operation starts: whether the provider
and the targets are configured, and what they think of provider_config and of the callbacks' addresses.`,
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
			in, err := a.read(cmd.Context(), file)
			if err != nil {
				return err
			}
			op, err := in.check("", bellhop.Verb(verb), false)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s is valid: %s %s/%s on %s\n", in.name, op.Verb, op.TenantID, op.Resource, op.Provider)
			return nil
		}),
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`file` with the operation, YAML or JSON; - is stdin")
	cmd.Flags().StringVar(&verb, "verb", "", "`verb` to check it for: provision, update, delete (default: the file's operation_type, or provision)")
	choices(cmd, "verb", bellhop.Verbs()...)
	return cmd
}
