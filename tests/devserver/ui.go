package main

import (
	"context"
	"fmt"
	"net/http"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"
)

// startUI serves Temporal's web UI for the frontend at the address.
func startUI(port int, frontend, namespace string) *uiserver.Server {
	ui := uiserver.NewServer(server_options.WithConfigProvider(&uiconfig.Config{
		TemporalGRPCAddress: frontend,
		Host:                localhost,
		Port:                port,
		EnableUI:            true,
		DefaultNamespace:    namespace,
		HideLogs:            true,
		// Without TLS a browser drops a cookie that is marked secure, and with it
		// every button that changes something.
		CORS: uiconfig.CORS{CookieInsecure: true},
		// Looks nothing up on the internet.
		DisableNewsFetch:   true,
		NotifyOnNewVersion: false,
	}))
	// Start returns only at the end, and ends the process if it cannot listen.
	go func() { _ = ui.Start() }()
	return ui
}

// awaitUI waits until the UI's start page is served.
func awaitUI(ctx context.Context, url string) error {
	return poll(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the UI answers %s", resp.Status)
		}
		return nil
	})
}
