package vm

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

const qemuProgram = "qemu-system-x86_64"

// baseWords of the kernel command line: panic=-1 turns a panic into a reset,
// which -no-reboot turns into the end of QEMU. Like Kata's guests this one does
// not test the timer's interrupt, which a busy machine emulates too late.
var baseWords = []string{"console=ttyS0", "quiet", "panic=-1", "no_timer_check", "cryptomgr.notests", "random.trust_cpu=on"}

// machineArgs are the arguments that do not depend on helpers.
func machineArgs(c Config, accelerator string) []string {
	args := append(cpuArgs(accelerator),
		"-machine", machine(c), "-m", memory(c), "-smp", processors(c),
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", c.Kernel)
	words := baseWords[:len(baseWords):len(baseWords)]
	if c.Root == "" {
		args = append(args, "-initrd", c.Initrd)
	} else {
		args = append(args, "-drive", "if=none,id=root,format=raw,snapshot=on,file="+escape(c.Root), "-device", "nvme,serial=root,drive=root")
		words = append(words, "root=/dev/nvme0n1p1", "rootfstype=ext4", "ro", "rootwait")
	}
	args = append(args, "-append", strings.Join(append(words, c.Words...), " "))
	args = append(args, c.Room.args()...)
	for i, d := range c.Disks {
		drive := fmt.Sprintf("if=none,id=disk%d,format=raw,cache=unsafe,file=%s", i, escape(d.Path))
		if d.ReadOnly {
			drive += ",readonly=on"
		}
		device := fmt.Sprintf("virtio-blk-pci,drive=disk%d", i)
		if d.Serial != "" {
			device += ",serial=" + escape(d.Serial)
		}
		args = append(args, "-drive", drive, "-device", device+slot(d.Slot))
	}
	if n := c.Network; n != nil {
		restrict := "off"
		if n.Restrict {
			restrict = "on"
		}
		device := "virtio-net-pci,netdev=net0,romfile="
		if n.MAC != "" {
			device += ",mac=" + n.MAC
		}
		args = append(args, "-netdev", "user,id=net0,restrict="+restrict, "-device", device+slot(n.Slot))
	}
	return args
}

func machine(c Config) string {
	name := cmp.Or(c.Machine, "q35")
	if c.Room.Memory > 0 {
		name += ",nvdimm=on"
	}
	return name
}

// processors sit in sockets of their own, as Kata has them: outside of known
// hypervisors Linux lets none join a package that is in use.
func processors(c Config) string {
	most := c.CPUs + c.Room.CPUs
	return fmt.Sprintf("%d,maxcpus=%d,sockets=%d,cores=1,threads=1", c.CPUs, most, most)
}

// memory leaves address space for what is plugged in later, each part aligned
// to a gibibyte by QEMU.
func memory(c Config) string {
	if c.Room.Memory == 0 {
		return strconv.Itoa(c.Memory)
	}
	return fmt.Sprintf("%d,slots=%d,maxmem=%dM", c.Memory, memorySlots, c.Memory+c.Room.Memory+memorySlots<<10)
}

// cpuArgs choose accelerator and processor. Without cx16: QEMU 7.2's TCG
// leaves wrong flags after CMPXCHG16B, and Linux 6.12 then dies of a double
// fault in its allocator. The bit can come back when no supported Debian has
// that QEMU.
func cpuArgs(accelerator string) []string {
	if accelerator == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=single", "-cpu", "max,-cx16"}
}

// sharedMemoryArgs put the guest's memory where device programs can map it.
func sharedMemoryArgs(memory int) []string {
	return []string{
		"-object", fmt.Sprintf("memory-backend-memfd,id=memory,size=%dM,share=on", memory),
		"-numa", "node,memdev=memory",
	}
}

func slot(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(",bus=pcie.0,addr=0x%x", n)
}

// escape doubles commas, which separate QEMU's options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
