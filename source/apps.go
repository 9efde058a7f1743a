package source

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/rack"
)

// SignApps signs the files under apps/ of HEAD with the operator's key, which
// the owners delegated them to, under a version of their own. With the online
// key at hand it is published at once, otherwise by the next timestamp. Of the
// options, Now, MetadataRef and Online are used.
func SignApps(dir string, operator OwnerKey, o SignOptions) error {
	p, err := openPublication(dir, o.MetadataRef, o.Now)
	if err != nil {
		return err
	}
	delegations, err := p.delegations()
	if err != nil {
		return err
	}
	if delegations == nil {
		return errNoOperator
	}
	_, id, err := operator.tufKey()
	if err != nil {
		return err
	}
	if delegations.Keys[id] == nil {
		return fmt.Errorf("sign apps with %s: %w", operator.Name, ErrNotOwner)
	}
	last := p.lastTarget()
	if last == nil {
		return fmt.Errorf("sign apps: the owners have published nothing yet")
	}
	branch, head, err := p.clone.head()
	if err != nil {
		return err
	}
	if branch != last.Ref {
		return fmt.Errorf("HEAD is on %s, the rack follows %s", branch, last.Ref)
	}
	files, err := p.clone.commitFiles(head, appsDir)
	if err != nil {
		return fmt.Errorf("read files of HEAD: %w", err)
	}
	if err := p.clone.checkClean(appsDir, files); err != nil {
		return err
	}
	n := p.newestApps() + 1
	content, err := json.Marshal(&target{
		Rack: last.Rack, Repository: last.Repository, Alternatives: last.Alternatives, Ref: last.Ref,
		Commit: head.String(), Sequence: uint64(n), Tree: rack.DigestOf(TreeDigest(files)),
	})
	if err != nil {
		return err
	}
	m := metadata.Targets(p.now.Add(TargetsLifetime).Truncate(time.Second))
	m.Signed.Version = n
	if err := p.addTarget(m, "apps.json", content); err != nil {
		return err
	}
	if _, err := sign(m, operator); err != nil {
		return err
	}
	if err := put(p, metadataPath(roleApps, n), m); err != nil {
		return err
	}
	if o.Online != nil && p.published() > 0 {
		if err := p.timestamp(*o.Online, p.published(), n); err != nil {
			return err
		}
	}
	p.prune()
	return p.save(fmt.Sprintf("%s signs apps %d", operator.Name, n))
}

// newestApps is the highest version of the operator's metadata.
func (p *publication) newestApps() int64 {
	var newest int64
	for name := range p.files {
		if v, ok := version(name, roleApps); ok {
			newest = max(newest, v)
		}
	}
	return newest
}
