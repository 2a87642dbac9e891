package nbd

import (
	"fmt"
	"io/fs"
)

// Catalog is what a server offers beside Config.Exports: exports that come and go
// while it runs. Its methods are called concurrently, must not wait, and change
// nothing: a client that only asks for information is no reason to open a volume.
type Catalog interface {
	// List returns the exports to name to a client that asks which there are.
	// Only Name and Description count.
	List() []Export
	// Find returns the export that a client calls name, which may be longer than
	// the export's Name, or empty for the default. An error refuses the client
	// and is told to it; wrap fs.ErrNotExist if there is no such export.
	Find(name string) (Export, error)
}

// list returns every export of the server: the fixed ones first.
func (s *Server) list() []Export {
	if s.catalog == nil {
		return s.exports
	}
	return append(s.exports[:len(s.exports):len(s.exports)], s.catalog.List()...)
}

// find returns the named export, the first if no name is given.
func (s *Server) find(name string) (*Export, error) {
	for i := range s.exports {
		if e := &s.exports[i]; e.Name == name || name == "" {
			return e, nil
		}
	}
	if s.catalog == nil {
		return nil, fmt.Errorf("no export is called %.64q: %w", name, fs.ErrNotExist)
	}
	e, err := s.catalog.Find(name)
	if err == nil {
		err = e.setDefaults()
	}
	return &e, err
}
