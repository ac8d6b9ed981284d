// Command webhook is an example: a service of your own that bellhop calls back. What is worth reading is in receiver.go.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "webhook:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.SetOutput(stderr)
	address := flags.String("listen", "127.0.0.1:8085", "`host:port` to be called back at")
	keyFile := flags.String("key-file", "orders.key", "`file` with the keys, one a line, of which one must have signed")
	database := flags.String("db", "orders.db", "SQLite `file` with the bill and the callbacks that are on it")
	show := flags.Bool("bill", false, "print the bill and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	book, err := openBook(ctx, *database)
	if err != nil {
		return fmt.Errorf("open %s: %w", *database, err)
	}
	defer book.Close() //nolint:errcheck // each transaction was committed or was not
	if *show {
		return book.print(ctx, stdout)
	}
	text, err := os.ReadFile(*keyFile)
	if err != nil {
		return fmt.Errorf("read the keys: %w", err)
	}
	receiver := &Receiver{book: book}
	for line := range bytes.Lines(text) {
		if err := receiver.trust(string(bytes.TrimSpace(line))); err != nil {
			return fmt.Errorf("read the keys in %s: %w", *keyFile, err)
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: receiver, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	fmt.Fprintf(stdout, "called back at http://%s\n", listener.Addr())
	go func() {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ending) //nolint:errcheck // what is cut short comes again
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
