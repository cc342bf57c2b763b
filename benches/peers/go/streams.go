package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"bascule/benches/peers/gen/bench"
)

const (
	itemsPerCall  = 1000
	pingPongs     = 10
	largeBytes    = 1 << 20
	largeInFlight = 4
)

type streamsServer struct {
	bench.UnimplementedStreamsServer
}

func item() *bench.Item {
	return &bench.Item{Id: 1_234_567, Name: "Ada Lovelace", Active: true}
}

func (streamsServer) Count(wanted *bench.Wanted, stream grpc.ServerStreamingServer[bench.Item]) error {
	for range wanted.Items {
		if err := stream.Send(item()); err != nil {
			return err
		}
	}
	return nil
}

func (streamsServer) PingPong(stream grpc.BidiStreamingServer[bench.Item, bench.Item]) error {
	for {
		ping, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		pong := &bench.Item{Id: ping.Id, Name: ping.Name, Active: ping.Active}
		if err := stream.Send(pong); err != nil {
			return err
		}
	}
}

func (streamsServer) Large(_ context.Context, blob *bench.Blob) (*bench.Blob, error) {
	return &bench.Blob{Data: blob.Data}, nil
}

// loads are what a server is measured with: one turn of each, which says how much it moved.
var loads = map[string]struct {
	workers int
	start   func(context.Context, bench.StreamsClient) (turn func() (int, error), err error)
}{
	"count":    {1, count},
	"pingpong": {pingPongs, pingPong},
}

func count(ctx context.Context, client bench.StreamsClient) (func() (int, error), error) {
	return func() (int, error) {
		stream, err := client.Count(ctx, &bench.Wanted{Items: itemsPerCall})
		if err != nil {
			return 0, err
		}
		for came := 0; ; came++ {
			if _, err := stream.Recv(); errors.Is(err, io.EOF) && came == itemsPerCall {
				return came, nil
			} else if err != nil {
				return 0, fmt.Errorf("%d of %d items came: %w", came, itemsPerCall, err)
			}
		}
	}, nil
}

func pingPong(ctx context.Context, client bench.StreamsClient) (func() (int, error), error) {
	stream, err := client.PingPong(ctx)
	if err != nil {
		return nil, err
	}
	return func() (int, error) {
		if err := stream.Send(item()); err != nil {
			return 0, err
		}
		pong, err := stream.Recv()
		if err == nil && pong.Id != item().Id {
			err = fmt.Errorf("the server answered %v", pong)
		}
		return 1, err
	}, nil
}

// load drives a server for so many seconds and prints what it moved in each.
func load(kind, target, duration string) error {
	seconds, err := strconv.ParseFloat(duration, 64)
	if err != nil {
		return err
	}
	if kind == "large" {
		moved, taken, err := blast(target, time.Duration(seconds*float64(time.Second)))
		if err == nil {
			fmt.Println(float64(moved) / taken.Seconds())
		}
		return err
	}
	shape, known := loads[kind]
	if !known {
		return fmt.Errorf("no such load: %q", kind)
	}
	connection, err := dial(target)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := bench.NewStreamsClient(connection)
	var (
		group  sync.WaitGroup
		mutex  sync.Mutex
		moved  int
		failed error
	)
	started := time.Now()
	end := started.Add(time.Duration(seconds * float64(time.Second)))
	for range shape.workers {
		group.Go(func() {
			turn, err := shape.start(ctx, client)
			mine := 0
			for err == nil && time.Now().Before(end) {
				var part int
				part, err = turn()
				mine += part
			}
			mutex.Lock()
			defer mutex.Unlock()
			moved += mine
			if err != nil {
				failed = err
			}
		})
	}
	group.Wait()
	if failed != nil {
		return failed
	}
	fmt.Println(float64(moved) / time.Since(started).Seconds())
	return nil
}
