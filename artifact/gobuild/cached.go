package gobuild

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/cache"
)

// Cached is Build, but compiles only what has not been compiled from the same sources before.
func Cached(ctx context.Context, c cache.Cache, p Program) (artifact.File, error) {
	key, err := Key(ctx, p)
	if err != nil {
		return artifact.File{}, fmt.Errorf("build %s: %w", p.Package, err)
	}
	// The origins are no function of the sources alone: what is in the bill of materials has Racklet's version.
	key = cache.Key("gobuild", key, p.Version)
	about, data, err := c.Derived(key)
	if err == nil {
		f := artifact.File{Mode: 0o755, Data: data}
		var kept origins
		if json.Unmarshal(about, &kept) == nil {
			f.Origin, f.Parts = kept.Origin, kept.Parts
			return f, nil
		}
	}
	f, err := Build(ctx, p)
	if err != nil {
		return f, err
	}
	if about, err = json.Marshal(origins{f.Origin, f.Parts}); err != nil {
		return f, err
	}
	return f, c.KeepDerived(key, about, f.Data)
}

// origins are what is kept of a file beside its bytes.
type origins struct {
	Origin artifact.Origin
	Parts  []artifact.Origin
}
