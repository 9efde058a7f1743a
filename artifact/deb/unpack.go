package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Limits of the ar format as deb(5) uses it.
const (
	arMagic  = "!<arch>\n"
	arHeader = 60
)

// Data returns the tar stream of a package's files: the member data.tar, whatever its compression
// (deb(5)). Reading it may fail with any error on a damaged package; packages are verified by hash before.
func Data(r io.Reader) (io.Reader, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(br, magic); err != nil || string(magic) != arMagic {
		return nil, errors.New("read package: not an ar archive")
	}
	for {
		h := make([]byte, arHeader)
		if _, err := io.ReadFull(br, h); err != nil {
			return nil, fmt.Errorf("read package: no member data.tar: %w", err)
		}
		if h[58] != '`' || h[59] != '\n' {
			return nil, errors.New("read package: malformed member header")
		}
		name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
		size, err := strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("read package: size of member %q is malformed", name)
		}
		if !strings.HasPrefix(name, "data.tar") {
			if _, err := io.CopyN(io.Discard, br, size+size%2); err != nil {
				return nil, fmt.Errorf("read package: member %q: %w", name, err)
			}
			continue
		}
		return decompress(io.LimitReader(br, size), strings.TrimPrefix(name, "data.tar"))
	}
}

func decompress(r io.Reader, ext string) (io.Reader, error) {
	switch ext {
	case "":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(bufio.NewReaderSize(r, 1<<16))
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("read package: compression %q is not known", ext)
}

// Walk calls fn for each file of a package, with clean paths that have no leading slash or dot.
func Walk(r io.Reader, fn func(h *tar.Header, r io.Reader) error) error {
	data, err := Data(r)
	if err != nil {
		return err
	}
	t := tar.NewReader(data)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read package: %w", err)
		}
		h.Name = strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if h.Name == "" {
			continue
		}
		if err := fn(h, t); err != nil {
			return err
		}
	}
}

// Unpack writes the regular files, directories and links of a package below dir. Names and links
// that would leave dir are an error.
func Unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	return Walk(r, func(h *tar.Header, r io.Reader) error {
		name := filepath.FromSlash(h.Name)
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = unpackFile(root, name, h, r)
		case tar.TypeSymlink:
			target := h.Linkname
			if path.IsAbs(target) { // an absolute link means the package's root, not the machine's
				if target, err = filepath.Rel("/"+path.Dir(h.Name), target); err != nil {
					return fmt.Errorf("unpack %s: %w", h.Name, err)
				}
			}
			if to := path.Join(path.Dir(h.Name), target); to == ".." || strings.HasPrefix(to, "../") {
				return fmt.Errorf("unpack %s: link to %s leaves the directory", h.Name, h.Linkname)
			}
			root.Remove(name)
			err = root.Symlink(target, name)
		case tar.TypeLink:
			root.Remove(name)
			err = root.Link(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"), name)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
		return nil
	})
}

func unpackFile(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	root.Remove(name)
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|os.FileMode(h.Mode&0o111))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// ReadXZ decompresses a whole xz stream of at most limit bytes.
func ReadXZ(b []byte, limit int64) ([]byte, error) {
	x, err := xz.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(x, limit+1))
	if err == nil && int64(len(out)) > limit {
		err = fmt.Errorf("decompresses to more than %d bytes", limit)
	}
	return out, err
}
