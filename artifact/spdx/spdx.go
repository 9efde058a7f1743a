// Package spdx writes bills of material: every file of an image with its hashes, its licence and the
// package that it comes from, as SPDX 2.3 in JSON (ISO/IEC 5962; https://spdx.github.io/spdx-spec/v2.3).
package spdx

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/racklet/racklet/artifact"
)

// A Document is the part of SPDX 2.3 that Racklet uses.
type Document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creation       `json:"creationInfo"`
	Packages          []Package      `json:"packages"`
	Files             []File         `json:"files"`
	Relationships     []Relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

// A Package is an origin of files (clause 7).
type Package struct {
	SPDXID           string     `json:"SPDXID"`
	Name             string     `json:"name"`
	Version          string     `json:"versionInfo,omitempty"`
	DownloadLocation string     `json:"downloadLocation"`
	FilesAnalyzed    bool       `json:"filesAnalyzed"`
	LicenseConcluded string     `json:"licenseConcluded"`
	LicenseDeclared  string     `json:"licenseDeclared"`
	CopyrightText    string     `json:"copyrightText"`
	Checksums        []Checksum `json:"checksums,omitempty"`
	ExternalRefs     []External `json:"externalRefs,omitempty"`
}

// An External is a package URL (clause 7.21).
type External struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

// A File is one file of the image (clause 8).
type File struct {
	SPDXID             string     `json:"SPDXID"`
	FileName           string     `json:"fileName"`
	Checksums          []Checksum `json:"checksums"`
	LicenseConcluded   string     `json:"licenseConcluded"`
	LicenseInfoInFiles []string   `json:"licenseInfoInFiles"`
	CopyrightText      string     `json:"copyrightText"`
}

// A Checksum is a hash in hex.
type Checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

// A Relationship ties elements together (clause 11).
type Relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

// Marshal returns the bill of an image: the files in it, in the order given. Directories, links and
// devices carry no content and are left out. It is an error when a file has no origin or licence.
func Marshal(image, version string, files []artifact.File) ([]byte, error) {
	d := Document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: image + " " + version,
		CreationInfo: creation{artifact.Epoch.Format("2006-01-02T15:04:05Z"), []string{"Tool: racklet", "Organization: Racklet"}},
	}
	const root = "SPDXRef-Image"
	d.Packages = []Package{{SPDXID: root, Name: image, Version: version, DownloadLocation: "NOASSERTION",
		LicenseConcluded: "NOASSERTION", LicenseDeclared: "NOASSERTION", CopyrightText: "NOASSERTION"}}
	d.Relationships = []Relationship{{d.SPDXID, "DESCRIBES", root}}

	origins := map[artifact.Origin]string{}
	for _, f := range files {
		if !f.Mode.IsRegular() {
			continue
		}
		for _, o := range append([]artifact.Origin{f.Origin}, f.Parts...) {
			if o.Name == "" || o.Source == "" || o.Licence == "" {
				return nil, fmt.Errorf("bill of materials: %s: origin %+v lacks name, source or licence", f.Name, o)
			}
			origins[o] = ""
		}
	}
	sorted := make([]artifact.Origin, 0, len(origins))
	for o := range origins {
		sorted = append(sorted, o)
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Source < sorted[j].Source })
	for i, o := range sorted {
		id := fmt.Sprintf("SPDXRef-Package-%d", i+1)
		origins[o] = id
		p := Package{SPDXID: id, Name: o.Name, Version: o.Version, DownloadLocation: "NOASSERTION",
			LicenseConcluded: o.Licence, LicenseDeclared: o.Licence, CopyrightText: "NOASSERTION",
			ExternalRefs: []External{{"PACKAGE-MANAGER", "purl", o.Source}}}
		if o.SHA256 != "" {
			p.Checksums = []Checksum{{"SHA256", o.SHA256}}
		}
		d.Packages = append(d.Packages, p)
	}

	digest := sha256.New()
	n := 0
	for _, f := range files {
		if !f.Mode.IsRegular() {
			continue
		}
		n++
		id := fmt.Sprintf("SPDXRef-File-%d", n)
		s1, s256 := sha1.Sum(f.Data), sha256.Sum256(f.Data)
		fmt.Fprintf(digest, "%s %x\n", f.Name, s256)
		licences := []string{f.Origin.Licence}
		d.Relationships = append(d.Relationships, Relationship{root, "CONTAINS", id}, Relationship{id, "GENERATED_FROM", origins[f.Origin]})
		for _, o := range f.Parts {
			licences = append(licences, o.Licence)
			d.Relationships = append(d.Relationships, Relationship{id, "STATIC_LINK", origins[o]})
		}
		d.Files = append(d.Files, File{
			SPDXID: id, FileName: "./" + f.Name,
			Checksums:        []Checksum{{"SHA1", hex.EncodeToString(s1[:])}, {"SHA256", hex.EncodeToString(s256[:])}},
			LicenseConcluded: all(licences), LicenseInfoInFiles: []string{"NOASSERTION"}, CopyrightText: "NOASSERTION",
		})
	}
	d.DocumentNamespace = fmt.Sprintf("https://spdx.org/spdxdocs/%s-%s-%x", strings.ReplaceAll(image, "/", "-"), version, digest.Sum(nil)[:16])
	b, err := json.MarshalIndent(d, "", " ")
	return append(b, '\n'), err
}

// all joins licence expressions, each once, sorted.
func all(list []string) string {
	seen := map[string]bool{}
	var out []string
	for _, l := range list {
		for _, one := range strings.Split(l, " AND ") {
			if one = strings.Trim(one, "()"); !seen[one] {
				seen[one] = true
				out = append(out, one)
			}
		}
	}
	sort.Strings(out)
	return strings.Join(out, " AND ")
}

// Parse decodes a bill.
func Parse(b []byte) (*Document, error) {
	d := new(Document)
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(d); err != nil {
		return nil, fmt.Errorf("parse bill of materials: %w", err)
	}
	if d.SPDXVersion != "SPDX-2.3" {
		return nil, fmt.Errorf("parse bill of materials: version %q", d.SPDXVersion)
	}
	return d, nil
}

// Check returns an error for the first file that the bill does not list with exactly this content.
func (d *Document) Check(files []artifact.File) error {
	listed := map[string]string{}
	for _, f := range d.Files {
		for _, c := range f.Checksums {
			if c.Algorithm == "SHA256" {
				listed[strings.TrimPrefix(f.FileName, "./")] = c.Value
			}
		}
	}
	for _, f := range files {
		if !f.Mode.IsRegular() {
			continue
		}
		want, ok := listed[f.Name]
		if !ok {
			return fmt.Errorf("file %s is not in the bill of materials", f.Name)
		}
		if got := sha256.Sum256(f.Data); hex.EncodeToString(got[:]) != want {
			return fmt.Errorf("file %s is %x, the bill of materials says %s", f.Name, got, want)
		}
	}
	return nil
}
