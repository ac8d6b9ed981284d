// Command tenant is what the tests run in containers: a tenant's program that behaves as it is told.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const address = ":8080"

func main() {
	name := "serve"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	after := flags.Duration("after", 0, "serve: healthy only then; exit: only then")
	deaf := flags.Bool("deaf", false, "serve: ignore SIGTERM")
	says := flags.String("says", "tenant", "serve: the answer")
	code := flags.Int("code", 1, "exit: with this code")
	flags.Parse(os.Args[min(2, len(os.Args)):])
	switch name {
	case "serve":
		serve(*says, *after, *deaf)
	case "healthy":
		healthy()
	case "exit":
		fmt.Println("out: last words")
		fmt.Fprintln(os.Stderr, "err: last words, env", strings.Join(os.Environ(), " "))
		time.Sleep(*after)
		os.Exit(*code)
	case "allocate":
		var kept [][]byte
		for {
			block := make([]byte, 1<<20)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			kept = append(kept, block)
			fmt.Println("allocated MiB:", len(kept))
		}
	}
}

func serve(says string, after time.Duration, deaf bool) {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	began := time.Now()
	http.HandleFunc("/healthy", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(began) < after {
			http.Error(w, "not yet, the password is "+os.Getenv("PASSWORD"), http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, says) })
	server := &http.Server{Addr: address}
	go func() {
		fmt.Println(server.ListenAndServe())
	}()
	for range terminated {
		if !deaf {
			break
		}
		fmt.Println("what?")
	}
	server.Shutdown(context.Background())
}

func healthy() {
	response, err := http.Get("http://127.0.0.1" + address + "/healthy")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	text := make([]byte, 200)
	n, _ := response.Body.Read(text)
	fmt.Print(string(text[:n]))
	if response.StatusCode != http.StatusOK {
		os.Exit(1)
	}
}
