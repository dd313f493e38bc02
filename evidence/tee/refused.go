package tee

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// Why there is no collector for some platforms, and will be none.
const (
	whySEV = "which is measured once for its owner before the guest runs, and has no report that a guest could ask for"
	whyCSV = "whose reports are signed with SM2 and SM3, which this program does not know"
	whySGX = "whose enclaves are processes: there is no guest in one that this program could be the agent of"
)

// refuse is the entry of a platform that is named where it is met. It does not
// count as one: what needs evidence is refused as on any other machine.
func refuse(kind, name, why string, present func() bool) Driver {
	err := fmt.Errorf("this is %s, %s: %w", name, why, errdefs.ErrNotFound)
	return Driver{
		Kind: evidence.Kind(kind), Present: present, Refused: true,
		Open: func() (evidence.Collector, error) { return nil, evidence.PlatformUnsupported.Wrap(err) },
	}
}

// csv is Hygon's descendant of SEV, which shows the signs of that too.
func (h host) csv() Driver {
	return refuse("csv", "Hygon CSV", whyCSV, func() bool { return h.exists("dev/csv-guest") })
}

func (h host) sevES() Driver {
	return refuse("sev-es", "SEV-ES without SNP", whySEV, func() bool { return h.sevStatus("sev_es", 2) })
}

func (h host) sev() Driver {
	return refuse("sev", "SEV without SNP", whySEV, func() bool { return h.sevStatus("sev", 1) })
}

func (h host) sgx() Driver {
	return refuse("sgx", "a machine with SGX", whySGX, func() bool { return h.opens("dev/sgx_enclave") })
}

// sevMSR is SEV_STATUS, which a guest reads without its host: bit 0 is SEV, bit
// 1 SEV-ES, bit 2 SNP. Other machines have no such register.
const (
	sevMSR = 0xc0010131
	sevSNP = 4
)

// sevStatus asks the register, and where the kernel does not show it the flags
// of the processor, which a host shows for what it can do for its guests.
func (h host) sevStatus(flag string, bits uint64) bool {
	f, err := os.Open(filepath.Join(h.root, "dev/cpu/0/msr"))
	if err == nil {
		defer f.Close()
		var b [8]byte
		if _, err := f.ReadAt(b[:], sevMSR); err == nil {
			status := binary.LittleEndian.Uint64(b[:])
			return status&bits != 0 && status&sevSNP == 0
		}
	}
	return h.processorFlag("hypervisor") && h.processorFlag(flag)
}
