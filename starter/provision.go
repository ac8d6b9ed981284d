package main

import (
	"github.com/spf13/cobra"

	"bellhop"
)

// The text of a here-document must not be indented, so examples are not.
const provisionExample = `bellhop provision --id web-1 -f - <<EOF
tenant_id: acme
resource: web
provider: simulated
spec:
  image: nginx:1.27
  ports: [{name: http, container_port: 80}]
EOF`

func (a *app) provision() *cobra.Command {
	return a.starter(bellhop.Provision, "Bring a tenant's compute into being, or make it match the spec", provisionExample)
}
