package initdata

import "fmt"

// Broker is what the configuration files of the reference guest components say
// about the key broker. An empty URL means that the file names none.
type Broker struct {
	URL  string
	Cert string // PEM certificates to trust in addition; may be empty
}

// AgentBroker reads [token_configs.kbs] of an aa.toml.
func AgentBroker(aa string) (Broker, error) {
	top, err := decode([]byte(aa))
	if err != nil {
		return Broker{}, fmt.Errorf("parse %s: %w", AgentConfig, err)
	}
	kbs := table(table(top, "token_configs"), "kbs")
	b := Broker{}
	if err := optional(kbs, "url", &b.URL); err != nil {
		return Broker{}, fmt.Errorf("parse %s: token_configs.kbs: %w", AgentConfig, err)
	}
	if err := optional(kbs, "cert", &b.Cert); err != nil {
		return Broker{}, fmt.Errorf("parse %s: token_configs.kbs: %w", AgentConfig, err)
	}
	return b, nil
}

// table returns the table under key, or nil, in which every look-up misses.
func table(parent map[string]any, key string) map[string]any {
	t, _ := parent[key].(map[string]any)
	return t
}

// optional stores the text under key, if there is one, in to.
func optional(table map[string]any, key string, to *string) (err error) {
	if _, ok := table[key]; ok {
		*to, err = text(table, key)
	}
	return err
}
