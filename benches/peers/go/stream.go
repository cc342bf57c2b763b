package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"bascule/benches/peers/gen/bench"
)

func dial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// upload streams so many bytes to the server and prints how many it says to have received.
func upload(target, size string) error {
	left, err := strconv.ParseUint(size, 10, 64)
	if err != nil {
		return err
	}
	connection, err := dial(target)
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := bench.NewEchoClient(connection).Upload(context.Background())
	if err != nil {
		return err
	}
	data := make([]byte, chunkBytes)
	for left > 0 {
		part := min(left, chunkBytes)
		if err := stream.Send(&bench.Chunk{Data: data[:part]}); err != nil {
			// The stream's own error says why; Send only says that it ended.
			_, err = stream.CloseAndRecv()
			return err
		}
		left -= part
	}
	total, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	fmt.Println(total.Bytes)
	return nil
}

// download asks for so many bytes and prints how many came.
func download(target, size string) error {
	wanted, err := strconv.ParseUint(size, 10, 64)
	if err != nil {
		return err
	}
	connection, err := dial(target)
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := bench.NewEchoClient(connection).Download(context.Background(), &bench.Total{Bytes: wanted})
	if err != nil {
		return err
	}
	var total uint64
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Println(total)
			return nil
		}
		if err != nil {
			return err
		}
		total += uint64(len(chunk.Data))
	}
}
