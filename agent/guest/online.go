package guest

import "context"

// OnlineCPUMem brings processors online until total are, 0 asking for none, and
// unless cpuOnly every memory block. The shim repeats it after each change of
// the pod's size.
func (m Machine) OnlineCPUMem(ctx context.Context, total uint32, cpuOnly bool) error {
	if total > 0 {
		if err := m.OnlineCPUs(ctx, total); err != nil {
			return err
		}
	}
	if cpuOnly {
		return nil
	}
	return m.OnlineMemory()
}
