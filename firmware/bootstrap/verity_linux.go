package bootstrap

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// verityName is the name of the mapped device.
const verityName = "racklet-root"

// dmIoctl calls the device mapper (linux/dm-ioctl.h) with the payload behind
// its header and returns the header as the kernel left it.
func dmIoctl(f *os.File, request uint, flags, targets uint32, payload []byte) (*unix.DmIoctl, error) {
	h := unix.DmIoctl{
		Version:      [3]uint32{4, 0, 0},
		Data_size:    uint32(unsafe.Sizeof(unix.DmIoctl{})) + uint32(len(payload)),
		Data_start:   uint32(unsafe.Sizeof(unix.DmIoctl{})),
		Target_count: targets,
		Flags:        flags,
	}
	copy(h.Name[:], verityName)
	buf := make([]byte, h.Data_size)
	copy(buf, unsafe.Slice((*byte)(unsafe.Pointer(&h)), h.Data_start))
	copy(buf[h.Data_start:], payload)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&buf[0]))); errno != 0 {
		return nil, errno
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&h)), h.Data_start), buf)
	return &h, nil
}

func dmControl() (*os.File, error) {
	f, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open device mapper: %w", err)
	}
	return f, nil
}

// openVerity maps a device that ends in its own hash tree and returns the path
// of the mapped device, read-only.
func openVerity(device string, v Verity) (string, error) {
	f, err := dmControl()
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := dmIoctl(f, unix.DM_DEV_CREATE, 0, 0, nil); err != nil {
		return "", fmt.Errorf("create mapped device: %w", err)
	}
	salt := "-"
	if len(v.Salt) > 0 {
		salt = hex.EncodeToString(v.Salt)
	}
	params := fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %s", device, device, v.BlockSize, v.BlockSize, v.DataBlocks, v.HashStart, v.Root, salt)
	var spec unix.DmTargetSpec
	spec.Length = v.DataBlocks * uint64(v.BlockSize) / sectorSize
	copy(spec.Target_type[:], "verity")
	n := int(unsafe.Sizeof(spec))
	size := (n + len(params) + 1 + 7) &^ 7
	spec.Next = uint32(size)
	payload := make([]byte, size)
	if _, err := binary.Encode(payload, binary.NativeEndian, &spec); err != nil {
		return "", err
	}
	copy(payload[n:], params)
	if _, err := dmIoctl(f, unix.DM_TABLE_LOAD, unix.DM_READONLY_FLAG, 1, payload); err != nil {
		return "", fmt.Errorf("load table %q: %w", params, err)
	}
	h, err := dmIoctl(f, unix.DM_DEV_SUSPEND, unix.DM_READONLY_FLAG, 0, nil) // without the suspend flag: resume
	if err != nil {
		return "", fmt.Errorf("resume mapped device: %w", err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(h.Dev)), nil
}

// closeVerity removes the mapped device, if there is one.
func closeVerity() error {
	f, err := dmControl()
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := dmIoctl(f, unix.DM_DEV_REMOVE, 0, 0, nil); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove mapped device: %w", err)
	}
	return nil
}

// readThrough reads size bytes of a mapped device, so that a block that does
// not match its hash is found, and named, before anything is started from it.
func readThrough(device string, size int64) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(device), err)
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	for at := int64(0); at < size; {
		n, err := unix.Pread(fd, buf[:min(int64(len(buf)), size-at)], at)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read at %d: %w", at, err)
		case n == 0:
			return fmt.Errorf("read at %d: %w", at, io.ErrUnexpectedEOF)
		}
		at += int64(n)
	}
	return nil
}
