package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"bascule/benches/peers/gen/bench"
)

const chunkBytes = 64 << 10

type echoServer struct {
	bench.UnimplementedEchoServer
}

func (echoServer) Unary(_ context.Context, request *bench.Message) (*bench.Message, error) {
	return &bench.Message{Id: request.Id, Name: request.Name, Active: request.Active}, nil
}

func (echoServer) Upload(stream grpc.ClientStreamingServer[bench.Chunk, bench.Total]) error {
	var total uint64
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&bench.Total{Bytes: total})
		}
		if err != nil {
			return err
		}
		total += uint64(len(chunk.Data))
	}
}

func (echoServer) Download(request *bench.Total, stream grpc.ServerStreamingServer[bench.Chunk]) error {
	data := make([]byte, chunkBytes)
	for left := request.Bytes; left > 0; {
		size := min(left, chunkBytes)
		if err := stream.Send(&bench.Chunk{Data: data[:size]}); err != nil {
			return err
		}
		left -= size
	}
	return nil
}

func serveEcho() error {
	listener, err := listen()
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	bench.RegisterEchoServer(server, echoServer{})
	bench.RegisterStreamsServer(server, streamsServer{})
	return server.Serve(listener)
}
