// Command hello is what the demo runs in a container: a page that says where it is.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	name, _ := os.Hostname() // in a container, its short id
	server := &http.Server{
		Addr:              ":8080",
		ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "hello from container %s\n", name)
		}),
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Println(server.ListenAndServe())
}
