// Schema writes the JSON Schema of every kind of rack object.
//
//	go run ./tools/schema -out rack/schema
//
// The types of package rack say what there is, their JSON tags what must be
// given, the tags enum, format, min and max what is allowed, and the comments
// of the source what it means: a field without a comment is an error. The
// result is checked in; a test of this package generates again and compares.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "schema: error: %v\n", err)
		os.Exit(1)
	}
}

func run(stdout io.Writer, args []string) error {
	flags := flag.NewFlagSet("schema", flag.ContinueOnError)
	out := flags.String("out", filepath.Join("rack", "schema"), "`directory` to write to")
	source := flags.String("source", "", "`directory` of package rack's source; default: the folder above the output")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *source == "" {
		*source = filepath.Join(*out, "..")
	}
	files, err := generate(*source)
	if err != nil {
		return err
	}
	for name, b := range files {
		name = filepath.Join(*out, name)
		if err := os.WriteFile(name, b, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(stdout, name)
	}
	return nil
}
