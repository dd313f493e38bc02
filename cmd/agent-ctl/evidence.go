package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// maxEvidence bounds a file; the largest are event logs.
const maxEvidence = 16 << 20

func (a *app) evidenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "evidence",
		Short: "Read and judge evidence of TDX and SEV-SNP, offline",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(a.evidenceDecodeCommand(), a.evidenceVerifyCommand())
	return cmd
}

func (a *app) evidenceDecodeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "decode FILE",
		Short: "Show what evidence says, without judging it",
		Long: "Show what evidence says, without judging it. The file is recognised by its\n" +
			"content: evidence as a key broker gets it, a raw quote or report, the data of an\n" +
			"ACPI CCEL table, or a token of a broker.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := openEvidence(args[0])
			if err != nil {
				return err
			}
			if f.Form == verify.FormToken {
				return a.printClaims(f)
			}
			st, err := f.Describe()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.printStatement(f, st, "not verified")
		},
	}
}

// trustFlags say whom evidence is judged by.
type trustFlags struct{ vek, root, at string }

func (a *app) evidenceVerifyCommand() *cobra.Command {
	var f trustFlags
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Judge evidence by its vendor's root",
		Long: "Judge evidence by its vendor's root, without any network: whether a genuine\n" +
			"platform signed it. What it says then still has to be what you want; the TCB is\n" +
			"not held against a list of current ones. Exit code 3 means that it is not genuine.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.evidenceVerify(args[0], f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.vek, "vek", "", "`FILE` with the VCEK or VLEK of a raw report, in DER or PEM")
	fl.StringVar(&f.root, "root", "", "PEM `FILE` to trust instead of the vendor's root: a root for TDX; ASK and ARK for SNP")
	fl.StringVar(&f.at, "at", "", "`DATE` of the judgement, as 2026-01-31, instead of now")
	return cmd
}

func (a *app) evidenceVerify(name string, t trustFlags) error {
	f, err := openEvidence(name)
	if err != nil {
		return err
	}
	options, err := t.options(f)
	if err != nil {
		return err
	}
	var certs verify.Certs
	if t.vek != "" {
		list, err := readCerts(t.vek)
		if err != nil {
			return err
		}
		certs.VEK = list[0].Raw
	}
	st, err := f.Verify(certs, options)
	if errdefs.IsUnauthorized(err) {
		return fmt.Errorf("%s is not genuine: %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return a.printStatement(f, st, "genuine")
}

func (t trustFlags) options(f *verify.File) (o verify.Options, err error) {
	if t.at != "" {
		if o.Now, err = time.Parse(time.DateOnly, t.at); err != nil {
			return o, usagef("--at %q is not a date like 2026-01-31", t.at)
		}
	}
	if t.root == "" {
		return o, nil
	}
	certs, err := readCerts(t.root)
	if err != nil {
		return o, err
	}
	if f.Kind() == evidence.TDX {
		o.TDXRoots = x509.NewCertPool()
		o.TDXRoots.AddCert(certs[len(certs)-1])
		return o, nil
	}
	if len(certs) != 2 {
		return o, usagef("--root %s: SNP needs two certificates, ASK and ARK in this order", t.root)
	}
	for _, product := range []string{"Milan", "Genoa", "Turin"} {
		for _, kind := range []string{"VCEK", "VLEK"} {
			o.SNPRoots = append(o.SNPRoots, verify.SNPChain{Product: product, Kind: kind, Between: certs[0], Root: certs[1]})
		}
	}
	return o, nil
}

func openEvidence(name string) (*verify.File, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxEvidence {
		return nil, fmt.Errorf("%s exceeds %d bytes: %w", name, maxEvidence, errdefs.ErrInvalidArgument)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f, err := verify.Open(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// readCerts reads one certificate in DER or any number in PEM.
func readCerts(name string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		certs = append(certs, c)
	}
	if len(certs) > 0 {
		return certs, nil
	}
	c, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("%s holds no certificate: %w", name, err)
	}
	return []*x509.Certificate{c}, nil
}

func (a *app) printClaims(f *verify.File) error {
	rows := [][]string{{"form", f.Form}, {"verdict", "not verified"}, {"claims", string(f.Claims)}}
	return a.print(map[string]any{"form": f.Form, "verdict": "not verified", "claims": f.Claims}, rows)
}

// printStatement shows all that the evidence says. Debug, TCB and SMT are
// among the facts of every platform.
func (a *app) printStatement(f *verify.File, st *verify.Statement, verdict string) error {
	fields := [][]string{{"form", f.Form}, {"verdict", verdict}, {"format", st.Format}}
	if st.TEE != "" {
		fields = append(fields,
			[]string{"tee", string(st.TEE)},
			[]string{"report_data", hex.EncodeToString(st.ReportData[:])},
			[]string{"measurement", hex.EncodeToString(st.Measurement[:])},
			[]string{"initdata", hex.EncodeToString(st.InitData)})
	}
	if st.TEE != evidence.SNP {
		for i, r := range st.RTMR {
			fields = append(fields, []string{fmt.Sprintf("rtmr%d", i), hex.EncodeToString(r[:])})
		}
	}
	if st.Events > 0 {
		fields = append(fields, []string{"events", fmt.Sprint(st.Events)})
	}
	for _, x := range st.Facts {
		fields = append(fields, []string{x.Name, x.Value})
	}
	shown := make(map[string]string, len(fields))
	for _, x := range fields {
		shown[x[0]] = x[1]
	}
	return a.print(shown, fields)
}
