package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// app is one invocation of the command line.
type app struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	// out and err are stdout and stderr as somebody looks at them.
	out, err screen

	connection connection
	pace       pace
	// began says that a command's own code runs: what went wrong before is a matter of usage.
	began bool
}

func newApp(getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{
		getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr,
		out:  newScreen(stdout, getenv),
		err:  newScreen(stderr, getenv),
		pace: defaultPace(),
	}
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // nil would stand for the process's own
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.began {
		err = usage(command, err)
	}
	return a.explain(err)
}

const about = `bellhop starts compute operations (provision, update, delete a tenant's compute), which Temporal carries out durably,
and tells what became of them.

An operation has an id of your choice. Asking again under the same id starts nothing twice, so every command that
starts one can be repeated.`

const connectionHelp = `Connection:
  Temporal is found as its own command line finds it: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY,
  TEMPORAL_TLS_…, or a profile (TEMPORAL_PROFILE) of temporal.toml. Flags win over the environment, the environment
  wins over the file. Default: localhost:7233, namespace "default".

  Where payloads are encrypted, say by which keyset (--keyset or BELLHOP_KEYSET), or by which codec server
  (TEMPORAL_CODEC_ENDPOINT and TEMPORAL_CODEC_AUTH, or "codec" in the profile).`

const exitHelp = `Exit codes:
  0    done; with --wait and for wait: the operation succeeded. For status: it could tell, whatever it told
  1    the operation failed or was cancelled (--wait and wait only); orphans: not all could be asked or removed
  2    wrong usage or input; also an id that belongs to another operation
  3    there is no such operation
  4    Temporal cannot be reached or refuses (address, namespace, permission)
  5    --timeout elapsed before the operation ended; it goes on. orphans: before there was a report
  6    Temporal takes no more at the moment; the command can be repeated as it is, in a while
  130  interrupted (Ctrl-C); an operation that was started goes on`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "bellhop",
		Short:         "Durable compute operations for any workflow engine",
		Long:          about + "\n\n" + connectionHelp + "\n\n" + exitHelp,
		Example:       provisionExample + "\nbellhop status web-1",
		Version:       currentVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("bellhop {{.Version}}\n")
	a.connection.register(root)
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Start an operation:"},
		&cobra.Group{ID: groupFollow, Title: "Find and follow operations:"},
		&cobra.Group{ID: groupKeys, Title: "Encrypt what Temporal stores:"},
	)
	root.AddCommand(
		a.provision(), a.update(), a.delete(), a.validate(), a.schema(),
		a.status(), a.wait(), a.list(), a.cancel(), a.redeliver(), a.orphans(),
		a.keysets(),
		a.version(),
	)
	return root
}

const (
	groupStart  = "start"
	groupFollow = "follow"
	groupKeys   = "keys"
)

// act makes a command's own code of f.
func (a *app) act(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.began = true
		return f(cmd, args)
	}
}

// callTimeout is how long one question to Temporal may take, with its retries.
const callTimeout = 10 * time.Second

// within bounds one question.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// oneID takes the id of an operation and nothing else.
func oneID(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return fmt.Errorf("say which operation: %s ID", cmd.CommandPath())
	case 1:
		return nil
	default:
		return fmt.Errorf("one operation at a time, please: %s takes one ID, not %d arguments", cmd.CommandPath(), len(args))
	}
}

// none takes no arguments.
func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, so %q is too many", cmd.CommandPath(), args[0])
	}
	return nil
}

// choices completes a flag that has a fixed set of values.
func choices[S ~string](cmd *cobra.Command, flag string, values ...S) {
	texts := make([]cobra.Completion, len(values))
	for i, value := range values {
		texts[i] = string(value)
	}
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(texts, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(fmt.Sprintf("complete --%s: %s", flag, err)) // there is no such flag: a mistake of ours
	}
}
