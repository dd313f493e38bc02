package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

func (a *app) initdataCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "initdata",
		Short: "Make and read the document that configures a guest",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(a.initdataBuildCommand(), a.initdataShowCommand())
	return cmd
}

// initdataFlags are the parts of a document and what to make of it.
type initdataFlags struct {
	policy, aa, cdh string
	add             []string
	algorithm       string
	format, file    string
}

func (a *app) initdataBuildCommand() *cobra.Command {
	var f initdataFlags
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Write an initdata document and print its digest",
		Long: "Write an initdata document and print its digest. The formats: toml is the\n" +
			"document itself; disk is the image to attach to a guest; annotation is the\n" +
			"value of the pod annotation io.katacontainers.config.hypervisor.cc_init_data.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.initdataBuild(&f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.policy, "policy", "", "`FILE` for "+initdata.Policy)
	fl.StringVar(&f.aa, "aa", "", "`FILE` for "+initdata.AgentConfig)
	fl.StringVar(&f.cdh, "cdh", "", "`FILE` for "+initdata.HubConfig)
	fl.StringArrayVar(&f.add, "add", nil, "further entry `NAME=FILE`, repeatable")
	fl.StringVar(&f.algorithm, "algorithm", "sha384", "digest `NAME`: sha256, sha384 or sha512")
	fl.StringVar(&f.format, "format", "disk", "`FORMAT` to write: toml, disk or annotation")
	fl.StringVar(&f.file, "out", "", "`FILE` to write, - for stdout (required)")
	return cmd
}

func (a *app) initdataBuild(f *initdataFlags) error {
	if f.file == "" {
		return usagef("--out is missing")
	}
	data, err := f.read()
	if err != nil {
		return err
	}
	raw := encodeInitdata(f.algorithm, data)
	doc, err := initdata.Parse(raw)
	if err != nil {
		return err
	}
	if !maps.Equal(doc.Data, data) {
		return errors.New("an entry has text that a TOML document cannot carry")
	}
	out, err := pack(f.format, raw)
	if err != nil {
		return err
	}
	if f.file == "-" {
		_, err = a.out.Write(out)
		return err
	}
	if err := os.WriteFile(f.file, out, 0o644); err != nil {
		return err
	}
	return a.printInitdata(doc)
}

func (f *initdataFlags) read() (map[string]string, error) {
	files := map[string]string{initdata.Policy: f.policy, initdata.AgentConfig: f.aa, initdata.HubConfig: f.cdh}
	for _, e := range f.add {
		name, file, ok := strings.Cut(e, "=")
		if !ok || name == "" || file == "" {
			return nil, usagef("--add %q: must be NAME=FILE", e)
		}
		files[name] = file
	}
	data := make(map[string]string)
	for name, file := range files {
		if file == "" {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		data[name] = string(raw)
	}
	if len(data) == 0 {
		return nil, usagef("the document would be empty: give --policy, --aa, --cdh or --add")
	}
	return data, nil
}

func (a *app) initdataShowCommand() *cobra.Command {
	var entry string
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Show an initdata document, whichever of the formats it has",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			raw, err := unpack(file)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			doc, err := initdata.Parse(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if entry == "" {
				return a.printInitdata(doc)
			}
			text, ok := doc.Data[entry]
			if !ok {
				return fmt.Errorf("%s: no entry %q", args[0], entry)
			}
			_, err = io.WriteString(a.out, text)
			return err
		},
	}
	cmd.Flags().StringVar(&entry, "entry", "", "print the text of the entry `NAME` alone")
	return cmd
}

func (a *app) printInitdata(doc *initdata.Document) error {
	type shown struct {
		Version   string            `json:"version"`
		Algorithm string            `json:"algorithm"`
		Digest    string            `json:"digest"`
		Data      map[string]string `json:"data"`
	}
	digest := hex.EncodeToString(doc.Digest())
	rows := [][]string{{"version", doc.Version}, {"algorithm", doc.Algorithm}, {"digest", digest}}
	for _, name := range slices.Sorted(maps.Keys(doc.Data)) {
		rows = append(rows, []string{name, fmt.Sprintf("%d bytes", len(doc.Data[name]))})
	}
	return a.print(shown{doc.Version, doc.Algorithm, digest, doc.Data}, rows)
}
