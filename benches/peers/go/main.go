// Command peer holds the Go programs that bascule is measured against and with.
//
// A server prints "ready ADDRESS" once it listens and stops when its standard input ends, so that
// it never outlives the harness that started it.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: peer echo | user | gateway UPSTREAM | upload TARGET BYTES | download TARGET BYTES | load KIND TARGET SECONDS")
	}
	arguments := os.Args[2:]
	var err error
	switch command := os.Args[1]; {
	case command == "echo":
		err = serveEcho()
	case command == "user":
		err = serveUsers()
	case command == "gateway" && len(arguments) == 1:
		err = serveGateway(arguments[0])
	case command == "upload" && len(arguments) == 2:
		err = upload(arguments[0], arguments[1])
	case command == "download" && len(arguments) == 2:
		err = download(arguments[0], arguments[1])
	case command == "load" && len(arguments) == 3:
		err = load(arguments[0], arguments[1], arguments[2])
	default:
		err = fmt.Errorf("no such command or wrong number of arguments: %q", os.Args[1:])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// listen binds a free loopback port, says so, and ends the process with its standard input.
func listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	fmt.Println("ready", listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return listener, nil
}
