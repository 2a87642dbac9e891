package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// configFile is a JSON object of flags. Unlike kong's own it refuses what is no flag's
// name: a setting that is mistyped must not be silently the default.
type configFile struct {
	kong.Resolver
	keys []string
}

func loadConfigFile(r io.Reader) (kong.Resolver, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if err := json.Unmarshal(text, &values); err != nil {
		return nil, fmt.Errorf("config file: %w (it is a JSON object of flags, see lockstep node --help)", err)
	}
	plain := map[string]any{}
	for key, value := range values {
		plain[strings.ReplaceAll(key, "-", "_")] = value // as kong looks for them
	}
	if text, err = json.Marshal(plain); err != nil {
		return nil, err
	}
	resolver, err := kong.JSON(bytes.NewReader(text))
	return configFile{resolver, slices.Sorted(maps.Keys(plain))}, err
}

// Validate implements kong.Resolver.
func (c configFile) Validate(app *kong.Application) error {
	flags := map[string]bool{}
	for _, command := range app.Children {
		if command.Name != "node" {
			continue
		}
		for _, flag := range command.Flags {
			flags[strings.ReplaceAll(flag.Name, "-", "_")] = true
		}
	}
	for _, key := range c.keys {
		if !flags[key] || key == "config" {
			return fmt.Errorf("config file: %q is no flag of lockstep node (see lockstep node --help)", key)
		}
	}
	return nil
}
