package main

import (
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/coffer-cc/coffer/evidence/verify"
)

// maxEvidence bounds a file; the largest are event logs.
const maxEvidence = 16 << 20

func (a *app) evidenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "evidence",
		Short: "Read and judge evidence of confidential guests, offline",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(a.evidenceDecodeCommand(), a.evidenceVerifyCommand())
	return cmd
}

func (a *app) evidenceDecodeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "decode FILE",
		Short: "Show what evidence says, without judging it",
		Long: "Show what evidence says, without judging it. The file, - for stdin, is recognised by its\n" +
			"content: evidence as a key broker gets it (TDX, SNP, Azure's vTPM on both, TPM), a\n" +
			"raw quote or report, the data of an ACPI CCEL table, or a token of a broker.\n" +
			"All of it may be forged: verify tells. Debug, TCB and SMT are always shown.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.openEvidence(args[0])
			if err != nil {
				return err
			}
			if f.Token != nil {
				return a.printToken(f.Token, "not verified")
			}
			st, err := f.Describe()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.printStatement(f, st, "not verified")
		},
	}
}

// openEvidence reads a file, or stdin by the name of "-".
func (a *app) openEvidence(name string) (*verify.File, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = readUpTo(a.in, "stdin")
	} else {
		data, err = readBounded(name)
	}
	if err != nil {
		return nil, err
	}
	f, err := verify.Open(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// readBounded refuses what is too large, also where the size of a file says
// nothing, as with a device or a pipe.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readUpTo(f, name)
}

func readUpTo(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxEvidence+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxEvidence {
		return nil, fmt.Errorf("%s exceeds %d bytes: %w", name, maxEvidence, errdefs.ErrInvalidArgument)
	}
	return data, nil
}
