package main

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/coffer-cc/coffer/evidence/verify"
)

func (a *app) evidenceVerifyCommand() *cobra.Command {
	var (
		t trustFlags
		d demandFlags
	)
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Judge evidence by its vendor's root, or a token by its broker's key",
		Long: "Judge evidence by its vendor's root, without any network: whether a genuine\n" +
			"platform signed it, and whether it says what the flags demand. Without demands a\n" +
			"genuine debug guest is genuine, too: debug, TCB and SMT are always shown. FILE is -\n" +
			"for stdin.\n\n" +
			"--collateral takes a folder or file with what the vendors publish, recognised by\n" +
			"content: answers of Intel's PCS or a PCCS for TCB info, QE identity and CRLs, their\n" +
			"headers or PEM for the issuer chains, or the file of Intel's PcsClientTool; AMD's\n" +
			"CRLs and the VCEK or VLEK. With it the TCB status of TDX is judged. Statuses other\n" +
			"than UpToDate are shown and accepted unless --tcb-status says which are; Revoked\n" +
			"and unknown ones never are.\n\n" +
			"A token is verified with --token-key, or with a chain in it that leads to --root.\n" +
			"Nothing vouches for the key of a plain TPM: demand it with --ak.\n\n" +
			"Exit codes: 0 genuine, and as demanded; 1 malformed; 2 wrong command line; 3 not\n" +
			"genuine, expired or revoked; 4 a file, certificate or piece of collateral is\n" +
			"missing; 6 a format that is not known here; 7 genuine, but not as demanded.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.evidenceVerify(args[0], &t, &d) },
	}
	fl := cmd.Flags()
	t.register(fl)
	d.register(fl)
	return cmd
}

func (a *app) evidenceVerify(name string, t *trustFlags, d *demandFlags) error {
	f, err := a.openEvidence(name)
	if err != nil {
		return err
	}
	if f.Token != nil {
		return a.verifyToken(name, f.Token, t, d)
	}
	options, err := t.options(f)
	if err != nil {
		return err
	}
	demands, err := d.read(options.Collateral != nil)
	if err != nil {
		return err
	}
	certs, err := t.endorsement(options.Collateral)
	if err != nil {
		return err
	}
	st, err := f.Verify(certs, options)
	if err != nil {
		return notGenuine(name, err)
	}
	if faults := demands.faults(st); len(faults) > 0 {
		if err := a.printStatement(f, st, "genuine, but not as demanded"); err != nil {
			return err
		}
		return mismatchError(fmt.Sprintf("%s is genuine, but not as demanded: %s", name, strings.Join(faults, "; ")))
	}
	return a.printStatement(f, st, "genuine")
}

func notGenuine(name string, err error) error {
	if errdefs.IsUnauthorized(err) {
		return fmt.Errorf("%s is not genuine: %w", name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (a *app) verifyToken(name string, tok *verify.Token, t *trustFlags, d *demandFlags) error {
	if d.any() {
		return usagef("a token is no evidence: what it has to say cannot be demanded by these flags")
	}
	trust, err := t.token()
	if err != nil {
		return err
	}
	if err := tok.Verify(trust); err != nil {
		return notGenuine(name, err)
	}
	return a.printToken(tok, "genuine")
}
