// grpc-go's interop server on the loopback interface: its own program listens on every interface.
//
// It says "ready ADDRESS" when it listens, and ends when its standard input does.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/reflection"
)

// named answers with its name where a request asks for it, which grpc-go's own service does not.
type named struct {
	testgrpc.TestServiceServer
	name string
}

func (n named) UnaryCall(ctx context.Context, in *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	response, err := n.TestServiceServer.UnaryCall(ctx, in)
	if response != nil && in.GetFillServerId() {
		response.ServerId = n.name
	}
	return response, err
}

func main() {
	name := flag.String("name", "grpc-go", "what the server answers with as its id")
	certificate := flag.String("certificate", "", "a PEM file; TLS is served if it is given")
	key := flag.String("key", "", "the PEM file of its key")
	flag.Parse()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	options := []grpc.ServerOption{orca.CallMetricsServerOption(nil)}
	if *certificate != "" {
		tls, err := credentials.NewServerTLSFromFile(*certificate, *key)
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(tls))
	}
	server := grpc.NewServer(options...)
	recorder := orca.NewServerMetricsRecorder()
	reports := orca.ServiceOptions{MinReportingInterval: time.Second, ServerMetricsProvider: recorder}
	if err := orca.Register(server, reports); err != nil {
		log.Fatal(err)
	}
	service := interop.NewTestServer(interop.NewTestServerOptions{MetricsRecorder: recorder})
	testgrpc.RegisterTestServiceServer(server, named{service, *name})
	reflection.Register(server)

	fmt.Println("ready", listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
