package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"bascule/benches/peers/gen/bench"
)

// What the client lets the server have under way: more than it can use.
const (
	streamWindow     = 4 << 20
	connectionWindow = 16 << 20
	readBuffer       = 1 << 20
)

// blaster asks for large messages on one connection without making messages of what comes back:
// it would otherwise be slower than the servers that it measures. It holds to HTTP/2's flow
// control, and checks the status and the size of every reply.
type blaster struct {
	conn net.Conn
	body []byte // the request's message, framed

	mutex    sync.Mutex
	work     sync.Cond // for the writer: the fields below have changed
	control  bytes.Buffer
	framer   *http2.Framer // into control
	encoder  *hpack.Encoder
	block    bytes.Buffer
	window   int // of the connection
	initial  int // of a stream
	maxFrame int
	streams  map[uint32]*request
	order    []uint32
	next     uint32
	closed   bool
}

// request is a request under way.
type request struct {
	sent, window int
	came         int
}

// blast drives the server for so long and answers with the bytes that came back whole.
func blast(target string, duration time.Duration) (int, time.Duration, error) {
	message, err := proto.Marshal(&bench.Blob{Data: make([]byte, largeBytes)})
	if err != nil {
		return 0, 0, err
	}
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	conn, err := net.Dial("tcp", target)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	b := &blaster{
		conn: conn, body: append(body, message...),
		window: 65535, initial: 65535, maxFrame: 16384,
		streams: map[uint32]*request{}, next: 1,
	}
	b.work.L = &b.mutex
	b.framer = http2.NewFramer(&b.control, nil)
	b.encoder = hpack.NewEncoder(&b.block)
	b.control.WriteString(http2.ClientPreface)
	_ = b.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow})
	_ = b.framer.WriteWindowUpdate(0, connectionWindow-65535)
	started := time.Now()
	for range largeInFlight {
		b.open(target)
	}
	failed := make(chan error, 1)
	go func() { failed <- b.write() }()
	moved, err := b.read(target, started.Add(duration))
	taken := time.Since(started)
	b.mutex.Lock()
	b.closed = true
	b.work.Signal()
	b.mutex.Unlock()
	return moved, taken, errors.Join(err, <-failed)
}

// open begins a call; the lock is held.
func (b *blaster) open(target string) {
	b.block.Reset()
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/bench.Streams/Large"},
		{":authority", target}, {"content-type", "application/grpc"}, {"te", "trailers"},
		{"grpc-timeout", "30S"},
	} {
		_ = b.encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	_ = b.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: b.next, BlockFragment: b.block.Bytes(), EndHeaders: true,
	})
	b.streams[b.next] = &request{window: b.initial}
	b.order = append(b.order, b.next)
	b.next += 2
}

// write sends what there is to send until the connection is closed.
func (b *blaster) write() error {
	heads := make([]byte, 0, 1<<12)
	for {
		b.mutex.Lock()
		var parts net.Buffers
		for {
			control := bytes.Clone(b.control.Bytes())
			b.control.Reset()
			if parts = b.take(heads, net.Buffers{control}); len(parts) > 1 || len(control) > 0 || b.closed {
				break
			}
			b.work.Wait()
		}
		closed := b.closed
		b.mutex.Unlock()
		if closed {
			return nil
		}
		if _, err := parts.WriteTo(b.conn); err != nil {
			return err
		}
	}
}

// take adds DATA frames of the requests in turn, as far as the windows go; the lock is held.
func (b *blaster) take(heads []byte, parts net.Buffers) net.Buffers {
	for idle := 0; idle < len(b.order) && len(parts) < 64; {
		id := b.order[0]
		stream := b.streams[id]
		size := min(len(b.body)-stream.sent, stream.window, b.window, b.maxFrame)
		if size <= 0 {
			b.order = append(b.order[1:], id)
			idle++
			continue
		}
		idle = 0
		var flags byte
		if stream.sent+size == len(b.body) {
			flags = byte(http2.FlagDataEndStream)
		}
		from := len(heads)
		heads = append(heads, byte(size>>16), byte(size>>8), byte(size), byte(http2.FrameData), flags)
		heads = binary.BigEndian.AppendUint32(heads, id)
		parts = append(parts, heads[from:], b.body[stream.sent:stream.sent+size])
		stream.sent += size
		stream.window -= size
		b.window -= size
		b.order = b.order[1:]
		if flags == 0 {
			b.order = append(b.order, id)
		}
	}
	return parts
}

// read takes replies, and begins a call for each, until the time is up.
func (b *blaster) read(target string, end time.Time) (int, error) {
	reader := bufio.NewReaderSize(b.conn, readBuffer)
	decoder := hpack.NewDecoder(4096, nil)
	moved, owed := 0, 0
	for {
		head, err := http2.ReadFrameHeader(reader)
		if err != nil {
			return moved, err
		}
		if head.Type == http2.FrameData {
			if _, err := reader.Discard(int(head.Length)); err != nil {
				return moved, err
			}
			b.mutex.Lock()
			b.streams[head.StreamID].came += int(head.Length)
			// No message is larger than a stream's window: only the connection's has to be renewed.
			if owed += int(head.Length); owed >= largeBytes {
				_ = b.framer.WriteWindowUpdate(0, uint32(owed))
				owed = 0
				b.work.Signal()
			}
			b.mutex.Unlock()
			continue
		}
		payload := make([]byte, head.Length)
		if _, err := io.ReadFull(reader, payload); err != nil {
			return moved, err
		}
		b.mutex.Lock()
		done, err := b.handle(head, payload, decoder)
		if done {
			moved += largeBytes
			if time.Now().Before(end) {
				b.open(target)
			}
		}
		over := len(b.streams) == 0
		b.work.Signal()
		b.mutex.Unlock()
		if err != nil || over {
			return moved, err
		}
	}
}

// handle takes any frame but DATA; true if a reply has ended well. The lock is held.
func (b *blaster) handle(head http2.FrameHeader, payload []byte, decoder *hpack.Decoder) (bool, error) {
	switch head.Type {
	case http2.FrameSettings:
		if head.Flags.Has(http2.FlagSettingsAck) {
			return false, nil
		}
		for ; len(payload) >= 6; payload = payload[6:] {
			value := int(binary.BigEndian.Uint32(payload[2:]))
			switch http2.SettingID(binary.BigEndian.Uint16(payload)) {
			case http2.SettingInitialWindowSize:
				for _, stream := range b.streams {
					stream.window += value - b.initial
				}
				b.initial = value
			case http2.SettingMaxFrameSize:
				b.maxFrame = value
			}
		}
		return false, b.framer.WriteSettingsAck()
	case http2.FramePing:
		if head.Flags.Has(http2.FlagPingAck) {
			return false, nil
		}
		return false, b.framer.WritePing(true, [8]byte(payload))
	case http2.FrameWindowUpdate:
		size := int(binary.BigEndian.Uint32(payload))
		if head.StreamID == 0 {
			b.window += size
		} else if stream := b.streams[head.StreamID]; stream != nil {
			stream.window += size
		}
		return false, nil
	case http2.FrameHeaders:
		fields, err := decoder.DecodeFull(payload)
		if err != nil || !head.Flags.Has(http2.FlagHeadersEndHeaders) {
			return false, fmt.Errorf("headers: %v, %w", head, err)
		}
		if !head.Flags.Has(http2.FlagHeadersEndStream) {
			return false, nil
		}
		stream := b.streams[head.StreamID]
		delete(b.streams, head.StreamID)
		for _, field := range fields {
			if field.Name == "grpc-status" && field.Value == "0" && stream.came == len(b.body) {
				return true, nil
			}
		}
		return false, fmt.Errorf("%d bytes came back with %v", stream.came, fields)
	case http2.FrameRSTStream, http2.FrameGoAway:
		return false, fmt.Errorf("the server sent %v: %x", head, payload)
	}
	return false, nil
}
