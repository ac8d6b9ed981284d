package main

import (
	"github.com/spf13/cobra"

	"bellhop"
)

const deleteExample = `bellhop delete --id web-3 --wait --timeout 5m -f - <<EOF
{"tenant_id": "acme", "resource": "web", "provider": "simulated"}
EOF`

func (a *app) delete() *cobra.Command {
	return a.starter(bellhop.Delete, "Remove a tenant's compute; removing what is absent succeeds", deleteExample)
}
