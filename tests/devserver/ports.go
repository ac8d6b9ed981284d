package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"syscall"
)

// localhost is the only address anything here listens on.
const localhost = "127.0.0.1"

func address(port int) string { return net.JoinHostPort(localhost, strconv.Itoa(port)) }

// choosePort returns port if nobody listens on it, or a free one for 0.
// The server's parts take ports by number and end the process when one is
// taken, so it is found out here, where it can still be explained.
func choosePort(port int) (int, error) {
	l, err := net.Listen("tcp", address(port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return 0, fmt.Errorf("port %d is in use: another server may be running; choose another port, or 0 for a free one", port)
	}
	if err != nil {
		return 0, err
	}
	defer l.Close()
	if port == 0 {
		return reserve(l)
	}
	return port, nil
}

// reserve keeps the kernel from giving l's port to somebody else between its
// closing here and the server's opening it. A connection that is closed from
// the server's side leaves the port in TIME_WAIT, where Linux does not hand it
// out as a free port, yet lets it be opened by number.
// The idea: go.temporal.io/server/common/testing/freeport.
func reserve(l net.Listener) (int, error) {
	_, name, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	port, err := strconv.Atoi(name)
	if err != nil {
		return 0, err
	}
	if runtime.GOOS == "darwin" {
		return port, nil // hands out free ports in turn: no early reuse
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, fmt.Errorf("reserve port %d: %w", port, err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return 0, fmt.Errorf("reserve port %d: %w", port, err)
	}
	return port, server.Close()
}
