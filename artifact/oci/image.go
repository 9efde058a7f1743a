package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/racklet/racklet/artifact"
)

// Image makes a container image of one layer out of a tree (image-spec v1.1, config.md and layer.md). The
// same arguments give the same bytes. The layer is not compressed: what holds images on a unit is.
func Image(repository, tag, architecture string, t *artifact.Tree, config v1.ImageConfig) (Artifact, error) {
	layer, err := tarOf(t)
	if err != nil {
		return Artifact{}, fmt.Errorf("make image %s: %w", repository, err)
	}
	made := artifact.Epoch
	doc, err := json.Marshal(v1.Image{
		Created: &made, Platform: v1.Platform{Architecture: architecture, OS: "linux"}, Config: config,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	if err != nil {
		return Artifact{}, fmt.Errorf("make image %s: %w", repository, err)
	}
	return Artifact{Repository: repository, Tag: tag,
		Config: Blob{MediaType: v1.MediaTypeImageConfig, Data: doc},
		Layers: []Blob{{MediaType: v1.MediaTypeImageLayer, Data: layer}},
	}, nil
}

// tarOf writes a tree as a layer.
func tarOf(t *artifact.Tree) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range t.Files() {
		h := &tar.Header{Name: f.Name, Mode: int64(f.Mode.Perm()), ModTime: artifact.Epoch, Format: tar.FormatPAX}
		switch f.Mode.Type() {
		case 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Data))
		case fs.ModeDir:
			h.Typeflag, h.Name = tar.TypeDir, f.Name+"/"
		case fs.ModeSymlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Target
		default:
			return nil, fmt.Errorf("%s: type %v is not possible in a layer", f.Name, f.Mode.Type())
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Digest is the digest that an artefact's manifest will have.
func (a Artifact) Digest() (digest.Digest, error) {
	doc, err := a.manifest()
	return digest.NewDigestFromBytes(digest.SHA256, sum(doc)), err
}

// Tree returns a layout with the artefacts as files of a tree below dir, as Write would leave it on a disk.
func Tree(t *artifact.Tree, dir string, o artifact.Origin, artifacts ...Artifact) error {
	put := func(name string, b []byte) {
		t.Add(artifact.File{Name: dir + "/" + name, Mode: 0o644, Data: b, Origin: o})
	}
	put(v1.ImageLayoutFile, layoutFile)
	var list []v1.Descriptor
	for _, a := range artifacts {
		doc, err := a.manifest()
		if err != nil {
			return fmt.Errorf("write artefact %s: %w", a.Repository, err)
		}
		list = append(list, a.descriptor(doc))
		for _, b := range append([]Blob{a.config(), {Data: doc}}, a.Layers...) {
			put(fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(b.Data)), b.Data)
		}
	}
	index, err := indexOf(list)
	if err != nil {
		return err
	}
	put(v1.ImageIndexFile, index)
	return nil
}

var layoutFile = []byte(`{"imageLayoutVersion":"` + v1.ImageLayoutVersion + `"}`)

func indexOf(list []v1.Descriptor) ([]byte, error) {
	return json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: list})
}
