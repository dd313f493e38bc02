package config

import "math"

func memAgentKeys() []Key {
	key := func(name string, v value, doc string) Key {
		return Key{File: "mem_agent_" + name, Cmdline: "agent.mem_agent_" + name, value: v, Doc: doc}
	}
	percent := func(at func(*MemAgent) *uint8) value {
		return number[uint8]{at: func(c *Config) *uint8 { return at(&c.MemAgent) }, max: 100}
	}
	count := func(at func(*MemAgent) *uint64) value {
		return number[uint64]{at: func(c *Config) *uint64 { return at(&c.MemAgent) }, max: math.MaxInt64}
	}
	strict := func(at func(*MemAgent) *bool) value {
		return boolean{at: func(c *Config) *bool { return at(&c.MemAgent) }, strict: true}
	}
	swap := key("memcg_swap", strict(func(m *MemAgent) *bool { return &m.Memcg.Swap }), "Move pages to swap.")
	swap.Trust = Guarded
	enable := key("enable", boolean{at: func(c *Config) *bool { return &c.MemAgent.Enable }}, "Reclaim memory that containers do not use. The other keys need it.")
	return []Key{
		enable,
		key("memcg_disable", strict(func(m *MemAgent) *bool { return &m.Memcg.Disable }), "Do not age pages."),
		swap,
		key("memcg_swappiness_max", number[uint8]{at: func(c *Config) *uint8 { return &c.MemAgent.Memcg.SwappinessMax }, max: 200}, "Upper bound of swappiness."),
		key("memcg_period_secs", count(func(m *MemAgent) *uint64 { return &m.Memcg.PeriodSecs }), "Seconds between two rounds."),
		key("memcg_period_psi_percent_limit", percent(func(m *MemAgent) *uint8 { return &m.Memcg.PeriodPSIPercent }), "Pressure above which a round is left out."),
		key("memcg_eviction_psi_percent_limit", percent(func(m *MemAgent) *uint8 { return &m.Memcg.EvictionPSIPercent }), "Pressure above which nothing is evicted."),
		key("memcg_eviction_run_aging_count_min", count(func(m *MemAgent) *uint64 { return &m.Memcg.EvictionAgingMin }), "Rounds before pages are evicted."),
		key("compact_disable", strict(func(m *MemAgent) *bool { return &m.Compact.Disable }), "Do not compact memory."),
		key("compact_period_secs", count(func(m *MemAgent) *uint64 { return &m.Compact.PeriodSecs }), "Seconds between two rounds."),
		key("compact_period_psi_percent_limit", percent(func(m *MemAgent) *uint8 { return &m.Compact.PeriodPSIPercent }), "Pressure above which a round is left out."),
		key("compact_psi_percent_limit", percent(func(m *MemAgent) *uint8 { return &m.Compact.PSIPercent }), "Pressure at which a round stops."),
		key("compact_sec_max", number[int64]{at: func(c *Config) *int64 { return &c.MemAgent.Compact.SecMax }, max: math.MaxInt64}, "Longest round in seconds."),
		key("compact_order", number[uint8]{at: func(c *Config) *uint8 { return &c.MemAgent.Compact.Order }, max: 20}, "Order of the blocks that are wanted."),
		key("compact_threshold", count(func(m *MemAgent) *uint64 { return &m.Compact.Threshold }), "Pages that must be free in smaller blocks. 0 is twice the size of a block."),
		key("compact_force_times", count(func(m *MemAgent) *uint64 { return &m.Compact.ForceTimes }), "Rounds left out before one is forced."),
	}
}
