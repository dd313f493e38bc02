package storage

// Handlers returns the table of drivers: the name on the wire to its handler.
func Handlers(d Deps) map[string]Handler {
	return map[string]Handler{}
}
