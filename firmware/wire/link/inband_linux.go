package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// InBandPort is the name of the virtio-serial port that is a virtual unit's
// in-band line.
const InBandPort = "racklet.bmc"

// OpenInBand opens the line from a compute unit to its BMC: the virtio-serial
// port of the right name on a virtual unit, else the terminal that the word
// racklet.bmc=/dev/NAME on the kernel's command line names. That command line
// is part of the boot slot that the BMC itself verified.
func OpenInBand(commandLine string) (io.ReadWriteCloser, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == InBandPort {
			f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
			if err != nil {
				return nil, fmt.Errorf("open in-band port: %w", err)
			}
			return virtioPort{f}, nil
		}
	}
	for _, word := range strings.Fields(commandLine) {
		if tty, ok := strings.CutPrefix(word, "racklet.bmc=/dev/"); ok {
			return openTTY("/dev/" + tty)
		}
	}
	return nil, errors.New("no virtio-serial port " + InBandPort + " and no terminal named")
}

// virtioPort reads on where the kernel reports an end: what is behind the port
// may come later than the unit, or be started again.
type virtioPort struct{ *os.File }

func (p virtioPort) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// openTTY opens a serial line raw, with eight bits and without flow control.
func openTTY(name string) (io.ReadWriteCloser, error) {
	f, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open in-band line: %w", err)
	}
	var t syscall.Termios
	err = termios(f, syscall.TCGETS, &t)
	if err == nil {
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		t.Cflag = t.Cflag&^(syscall.CSIZE|syscall.PARENB|syscall.CSTOPB) | syscall.CS8 | syscall.CREAD | syscall.CLOCAL
		t.Cc[syscall.VMIN], t.Cc[syscall.VTIME] = 1, 0
		err = termios(f, syscall.TCSETS, &t)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("in-band line %s: %w", name, err)
	}
	return f, nil
}

func termios(f *os.File, request uintptr, t *syscall.Termios) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(t))); errno != 0 {
		return errno
	}
	return nil
}
