package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os/signal"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/verify"
)

func (a *app) kbsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kbs",
		Short: "Serve keys and secrets to guests, for development",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(a.kbsServeCommand())
	return cmd
}

// kbsFlags say where the broker listens and to whom it gives what.
type kbsFlags struct {
	listen      string
	insecure    bool
	resources   string
	allowSample bool
	refuse      bool
	rules       string
	issuer      string
	cert, key   string
	tdxRoot     string
	snpRoot     string
	collateral  []string
}

func (a *app) kbsServeCommand() *cobra.Command {
	var f kbsFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the development key broker",
		Long: "Run the development key broker until it is interrupted. It serves the files\n" +
			"DIR/repository/type/tag to guests that attest: with evidence of TDX or SEV-SNP\n" +
			"that verifies against the vendors' roots, also below Azure's paravisor; of a TPM\n" +
			"whose key a rule names; or with sample evidence where that is\n" +
			"allowed. It is not for production: use Trustee there. With port 0 it picks one;\n" +
			"the URL is printed once it listens.\n\n" +
			"Nothing is fetched from the network: --collateral takes what agent-ctl evidence\n" +
			"verify takes. With it the TCB status of TDX is judged, and revocations count.\n\n" +
			"In the file of --rules the first table whose path fits decides, and a resource\n" +
			"that none names is given to nobody. Conditions that are left out do not count:\n\n" +
			"  [[resource]]\n" +
			"  path = \"default/key/*\"      # repository/type/tag, with * and ?\n" +
			"  tee = [\"snp\", \"tdx\"]\n" +
			"  measurement = [\"<hex>\"]     # of SNP, or MRTD of TDX\n" +
			"  initdata = [\"<hex>\"]        # digest; agent-ctl initdata build prints it\n" +
			"  unbound = false             # true also takes a guest's mere word for its initdata\n" +
			"  rtmr = { 1 = \"<hex>\" }      # of TDX\n" +
			"  pcr = { 8 = \"<hex>\" }       # of a TPM\n" +
			"  ak = [\"<hex>\"]              # SHA-256 of a plain TPM's key, which needs it\n" +
			"  tcb_status = [\"UpToDate\"]   # of TDX; needs --collateral\n" +
			"  debug = false               # true also serves debug guests",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return a.kbsServe(ctx, &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8080", "`ADDRESS` to listen on")
	fl.BoolVar(&f.insecure, "insecure-listen", false, "allow an address that others can reach")
	fl.StringVar(&f.resources, "resources", "", "`DIR` with one file per resource (required)")
	fl.BoolVar(&f.allowSample, "allow-sample", false, "accept sample evidence, which anybody can write")
	fl.StringVar(&f.rules, "rules", "", "TOML `FILE` that says which guests get which resources")
	fl.StringVar(&f.issuer, "issuer", "", "`NAME` in tokens; a guest on a real platform refuses the default one, so that none depends on this broker by mistake")
	fl.StringArrayVar(&f.collateral, "collateral", nil, "`PATH` of a file, or folder of files, that the vendors publish; repeatable")
	fl.StringVar(&f.tdxRoot, "tdx-root", "", "PEM `FILE` with the root to trust for TDX instead of Intel's")
	fl.StringVar(&f.snpRoot, "snp-root", "", "PEM `FILE` with the ASK and ARK to trust for SNP instead of AMD's")
	fl.BoolVar(&f.refuse, "refuse", false, "refuse every resource, as a policy would")
	fl.StringVar(&f.cert, "tls-cert", "", "PEM `FILE` with the certificate, for HTTPS")
	fl.StringVar(&f.key, "tls-key", "", "PEM `FILE` with the certificate's key")
	return cmd
}

func (a *app) kbsServe(ctx context.Context, f *kbsFlags) error {
	if f.resources == "" {
		return usagef("--resources is missing")
	}
	config, scheme, err := f.tls()
	if err != nil {
		return err
	}
	folder, err := devkbs.Folder(f.resources)
	if err != nil {
		return err
	}
	var rules devkbs.Rules
	if f.rules != "" {
		if rules, err = devkbs.ReadRules(f.rules); err != nil {
			return err
		}
	}
	trust, err := f.trust()
	if err != nil {
		return err
	}
	if trust.Collateral == nil && rules.DemandTCB() {
		return usagef("%s asks for a tcb_status: --collateral is missing", f.rules)
	}
	srv, err := devkbs.New(devkbs.Options{
		Resources:   folder,
		Rules:       rules,
		Issuer:      f.issuer,
		Verify:      trust,
		AllowSample: f.allowSample,
		Refuse:      f.refuse,
		Log:         slog.New(slog.NewTextHandler(a.err, nil)),
	})
	if err != nil {
		return err
	}
	l, err := devkbs.Listen(f.listen, f.insecure)
	if errdefs.IsPermissionDenied(err) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	url := scheme + "://" + l.Addr().String()
	if err := a.print(map[string]string{"url": url}, [][]string{{url}}); err != nil {
		l.Close()
		return err
	}
	a.note("this key broker is for development, not for production")
	return srv.Serve(ctx, l, config)
}

// trust is that in the vendors where nothing else is said.
func (f *kbsFlags) trust() (o verify.Options, err error) {
	if o.Collateral, err = readCollateral(f.collateral); err != nil {
		return o, err
	}
	if f.tdxRoot != "" {
		if o.TDXRoots, err = readTDXRoot(f.tdxRoot); err != nil {
			return o, err
		}
	}
	if f.snpRoot != "" {
		o.SNPRoots, err = readSNPRoots(f.snpRoot)
	}
	return o, err
}

// tls returns nil without the two flags.
func (f *kbsFlags) tls() (*tls.Config, string, error) {
	if f.cert == "" && f.key == "" {
		return nil, "http", nil
	}
	if f.cert == "" || f.key == "" {
		return nil, "", usagef("--tls-cert and --tls-key go together")
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, "", err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, "https", nil
}
