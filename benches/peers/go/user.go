package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bascule/benches/peers/gen/user"
)

// userServer is the upstream that both gateways stand in front of.
type userServer struct {
	user.UnimplementedUserServiceServer
}

func (userServer) GetUser(_ context.Context, request *user.GetUserRequest) (*user.User, error) {
	return &user.User{
		Id:          request.Id,
		Email:       "ada@example.com",
		DisplayName: "Ada Lovelace",
		CreateTime:  &timestamppb.Timestamp{Seconds: 1767225600},
	}, nil
}

func serveUsers() error {
	listener, err := listen()
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	user.RegisterUserServiceServer(server, userServer{})
	return server.Serve(listener)
}
