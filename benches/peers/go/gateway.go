package main

import (
	"context"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"bascule/benches/peers/gen/user"
)

// serveGateway is grpc-gateway as its documentation sets it up, on HTTP/2 without TLS.
func serveGateway(upstream string) error {
	connection, err := dial(upstream)
	if err != nil {
		return err
	}
	defer connection.Close()
	routes := runtime.NewServeMux()
	if err := user.RegisterUserServiceHandler(context.Background(), routes, connection); err != nil {
		return err
	}
	listener, err := listen()
	if err != nil {
		return err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: routes, Protocols: &protocols}
	return server.Serve(listener)
}
