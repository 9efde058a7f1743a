package mesh

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"

	"github.com/racklet/racklet/structural/solid"
)

// ThreeMF encodes the mesh as a 3MF document (3D Manufacturing Format, Core
// Specification 1.3), millimetres, one object. Equal meshes give equal bytes.
func (m *Mesh) ThreeMF(title string) ([]byte, error) {
	var model bytes.Buffer
	model.WriteString(xml.Header + `<model unit="millimeter" xml:lang="en" xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">` + "\n")
	model.WriteString(` <metadata name="Title">`)
	if err := xml.EscapeText(&model, []byte(title)); err != nil {
		return nil, err
	}
	model.WriteString("</metadata>\n <metadata name=\"LicenseTerms\">CERN-OHL-P-2.0</metadata>\n <resources><object id=\"1\" type=\"model\"><mesh><vertices>\n")
	num := func(f float64) string { return strconv.FormatFloat(math.Round(f*1e4)/1e4, 'f', -1, 64) }
	index := map[[3]int64]int{}
	var faces bytes.Buffer
	for _, t := range m.Triangles {
		var id [3]int
		for k, v := range t {
			key := [3]int64{int64(math.Round(v[0] * 1e4)), int64(math.Round(v[1] * 1e4)), int64(math.Round(v[2] * 1e4))}
			i, ok := index[key]
			if !ok {
				i = len(index)
				index[key] = i
				fmt.Fprintf(&model, `<vertex x="%s" y="%s" z="%s"/>`+"\n", num(v[0]), num(v[1]), num(v[2]))
			}
			id[k] = i
		}
		if id[0] != id[1] && id[1] != id[2] && id[0] != id[2] {
			fmt.Fprintf(&faces, `<triangle v1="%d" v2="%d" v3="%d"/>`+"\n", id[0], id[1], id[2])
		}
	}
	model.WriteString("</vertices><triangles>\n")
	model.Write(faces.Bytes())
	model.WriteString("</triangles></mesh></object></resources>\n <build><item objectid=\"1\"/></build>\n</model>\n")

	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, f := range []struct {
		name string
		body []byte
	}{
		{"[Content_Types].xml", []byte(xml.Header + `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>`)},
		{"_rels/.rels", []byte(xml.Header + `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Target="/3D/3dmodel.model" Id="rel0" Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>`)},
		{"3D/3dmodel.model", model.Bytes()},
	} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Deflate})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Box is the mesh of a box between two corners.
func Box(a, b solid.Vec) *Mesh {
	v := func(i int) solid.Vec {
		p := a
		for k := range 3 {
			if i>>k&1 == 1 {
				p[k] = b[k]
			}
		}
		return p
	}
	m := &Mesh{}
	for _, q := range [][4]int{{0, 2, 3, 1}, {4, 5, 7, 6}, {0, 1, 5, 4}, {2, 6, 7, 3}, {0, 4, 6, 2}, {1, 3, 7, 5}} {
		m.Triangles = append(m.Triangles, [3]solid.Vec{v(q[0]), v(q[1]), v(q[2])}, [3]solid.Vec{v(q[0]), v(q[2]), v(q[3])})
	}
	return m
}
