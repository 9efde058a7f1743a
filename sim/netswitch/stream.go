package netswitch

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// maxRecord is the longest record we read. QEMU sends none above its
// NET_BUFSIZE, 4096 + 65536 bytes.
const maxRecord = 4096 + 65536

// ErrRecord says that a peer's framing makes no sense; the stream is lost.
var ErrRecord = errors.New("record length out of range")

// ServeStream plugs conn into the port and carries frames until ctx ends or the
// peer closes, which is no error. conn is closed when it returns.
//
// The framing is that of QEMU's -netdev stream: each Ethernet frame behind its
// length, 32 bits, big-endian.
func (p *Port) ServeStream(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	w := &streamWriter{conn: conn}
	unplug, err := p.Attach(w.frame)
	if err != nil {
		return fmt.Errorf("plug into port %s: %w", p.name, err)
	}
	defer func() {
		conn.Close() // frees a writer that waits for the peer
		unplug()
	}()

	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		frame, err := readRecord(r)
		switch {
		case err == nil:
			p.Send(frame)
		case errors.Is(err, ErrRecord):
			return fmt.Errorf("read from port %s: %w", p.name, err)
		default:
			return ctx.Err() // closed by either side
		}
	}
}

// readRecord reads one frame with its length before it. The frame is not longer
// than maxRecord; an error other than ErrRecord is the stream's.
func readRecord(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxRecord {
		return nil, fmt.Errorf("%w: %d, want 1 to %d", ErrRecord, n, maxRecord)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	return frame, nil
}

type streamWriter struct {
	conn net.Conn
	buf  []byte
}

// frame writes one record in one call. A peer that is gone shows up on the
// reading side, so the error is not looked at here.
func (w *streamWriter) frame(frame []byte) {
	w.buf = binary.BigEndian.AppendUint32(w.buf[:0], uint32(len(frame)))
	w.buf = append(w.buf, frame...)
	_, _ = w.conn.Write(w.buf)
}
