package main

import (
	"github.com/spf13/cobra"

	"bellhop"
)

const updateExample = `bellhop update --id web-2 --wait -f - <<EOF
tenant_id: acme
resource: web
provider: simulated
spec:
  image: nginx:1.28
  replicas: 2
EOF`

func (a *app) update() *cobra.Command {
	return a.starter(bellhop.Update, "Replace a tenant's compute by what the spec says", updateExample)
}
