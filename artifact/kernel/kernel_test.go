package kernel_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/racklet/racklet/artifact/kernel"
	"github.com/racklet/racklet/artifact/kernel/kerneltest"
)

func read(t *testing.T) *kernel.Kernel {
	t.Helper()
	k, err := kernel.Read(bytes.NewReader(kerneltest.Package(map[string]string{
		"dm-mod":       "name=dm_mod depends=",
		"reed_solomon": "depends=",
		"dm-bufio":     "depends=dm-mod",
		"dm-verity":    "depends=dm-mod,reed_solomon,dm-bufio",
		"libcrc32c":    "depends= softdep=pre:crc32c-generic", // blanks cannot be written here
		"broken":       "depends=absent",
		"virtio_net":   "depends=net_failover",
		"net_failover": "depends=failover,dm-mod",
		"failover":     "depends=builtin_one",
	}, "builtin-one")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestModules(t *testing.T) {
	k := read(t)
	if k.Release != kerneltest.Release || !bytes.Equal(k.Image, kerneltest.Image()) {
		t.Errorf("release %q, image of %d bytes", k.Release, len(k.Image))
	}
	list, err := k.Modules("dm_verity", "virtio-net", "builtin_one", "dm-mod")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
		if !bytes.HasPrefix(m.Data, []byte("\x7fELF")) {
			t.Errorf("%s is not decompressed", m.Name)
		}
	}
	if got, want := strings.Join(names, " "), "dm_mod reed_solomon dm_bufio dm_verity failover net_failover virtio_net"; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
	for _, name := range []string{"nonsense", "broken"} {
		if _, err := k.Modules(name); err == nil {
			t.Errorf("module %s: no error", name)
		}
	}
}

func TestGzip(t *testing.T) {
	k := read(t)
	z, err := gzip.NewReader(bytes.NewReader(k.Gzip()))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, k.Image) {
		t.Errorf("decompressed to %d bytes, %v", len(got), err)
	}
	if !z.ModTime.IsZero() || z.Name != "" {
		t.Error("the header carries facts of this machine")
	}
}

func TestReadRefuses(t *testing.T) {
	good := kerneltest.Package(nil)
	for name, b := range map[string][]byte{
		"no archive": []byte("#!/bin/sh"),
		"empty":      nil,
		"cut off":    good[:len(good)/2],
	} {
		if _, err := kernel.Read(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
