package main

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rules of this repository that a compiler does not know. A violation is
// reported at its place, so that it reads as a compiler's message would.

const (
	module   = "lockstep"
	maxLines = 500
)

// rule says what the packages of one folder may import beyond the standard
// library: own names packages of this module ("x/..." is x and all below it),
// others prefixes of foreign modules. Tests are held to own alone.
type rule struct {
	own    []string
	others []string
}

var anything = []string{""}

// The parts stay apart so that each can be understood, tested and replaced
// alone. A folder that is missing here is not part of the design.
var layout = map[string]rule{
	"cmd/lockstep":                       {own: []string{"..."}, others: anything},
	"cmd/lockstep/busypoll":              {others: []string{"golang.org/x/sys"}},
	"cmd/lockstep/api":                   {own: []string{"mirror/..."}, others: []string{"golang.org/x/sys"}},
	"cmd/lockstep/child":                 {},
	"cmd/lockstep/drill":                 {others: []string{"golang.org/x/sync"}},
	"cmd/lockstep/export":                {own: []string{"mirror", "nbd"}},
	"cmd/lockstep/node":                  {own: []string{"cmd/lockstep/...", "mirror/...", "nbd"}, others: anything},
	"cmd/lockstep/target":                {own: []string{"cmd/lockstep/...", "mirror/control", "nbd", "wanem/..."}, others: []string{"golang.org/x/sys"}},
	"nbd":                                {others: []string{"github.com/pojntfx/go-nbd", "golang.org/x/sys"}},
	"nbd/kernel":                         {own: []string{"nbd"}, others: anything},
	"mirror":                             {own: []string{"mirror/..."}, others: []string{"golang.org/x/sys"}},
	"mirror/wire":                        {},
	"mirror/dirty":                       {},
	"mirror/store":                       {own: []string{"mirror/dirty", "mirror/store/..."}, others: []string{"golang.org/x/sys"}},
	"mirror/store/vfs":                   {others: []string{"golang.org/x/sys"}},
	"mirror/store/memfs":                 {own: []string{"mirror/store/..."}},
	"mirror/store/powercut":              {own: []string{"mirror/store/..."}},
	"mirror/store/powercut/cmd/powercut": {own: []string{"mirror/store/..."}, others: []string{"golang.org/x/sys"}},
	"mirror/internal/sabotage":           {},
	"mirror/control":                     {own: []string{"mirror/internal/sabotage"}, others: anything},
	"mirror/port":                        {others: []string{"golang.org/x/sys"}},
	"mirror/forward":                     {own: []string{"mirror", "mirror/port"}},
	"mirror/host":                        {own: []string{"mirror/..."}},
	"mirror/sim":                         {own: []string{"mirror/..."}, others: []string{"github.com/anishathalye/porcupine"}},
	"mirror/sim/cmd":                     {own: []string{"mirror/..."}, others: anything},
	"wanem":                              {},
	"wanem/netem":                        {own: []string{"wanem"}, others: anything},
	"wanem/tun":                          {own: []string{"wanem"}, others: []string{"golang.org/x/sys"}},
	"wanem/sites":                        {own: []string{"wanem/..."}, others: anything},
	"wanem/check":                        {own: []string{"wanem/..."}, others: []string{"golang.org/x/sys"}},
	"wanem/sweep":                        {own: []string{"wanem/..."}, others: anything},
}

type source struct {
	path string // slash-separated, relative to the root
	text []byte
	file *ast.File
	fset *token.FileSet
}

func (s source) dir() string  { return filepath.ToSlash(filepath.Dir(s.path)) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// at is the place of a node, as editors understand it.
func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

func readSources(t *testing.T) []source {
	t.Helper()
	var all []source
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
		all = append(all, source{path, text, file, fset})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPolicyFiles(t *testing.T) {
	for _, s := range readSources(t) {
		if n := bytes.Count(s.text, []byte("\n")); n > maxLines {
			t.Errorf("%s: %d lines, the most is %d: split it by job", s.path, n, maxLines)
		}
		if pretty, err := format.Source(s.text); err != nil || !bytes.Equal(pretty, s.text) {
			t.Errorf("%s: not gofmt'ed", s.path)
		}
	}
}

func TestPolicyPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range readSources(t) {
		if !s.isTest() {
			documented[s.dir()] = documented[s.dir()] || s.file.Doc != nil
		}
	}
	for dir, has := range documented {
		if !has {
			t.Errorf("%s: no package comment: its doc.go is the design page", dir)
		}
	}
}

// wellKnown methods do what the standard library's interfaces say.
var wellKnown = map[string]bool{"Error": true, "Unwrap": true, "Is": true, "String": true}

func TestPolicyExportedNamesAreDocumented(t *testing.T) {
	for _, s := range readSources(t) {
		if s.isTest() || s.file.Name.Name == "main" {
			continue
		}
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && receiverIsExported(d) && !wellKnown[d.Name.Name] {
					t.Errorf("%s: %s has no doc comment", s.at(d), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, name := range undocumented(d) {
					t.Errorf("%s: %s has no doc comment", s.at(name), name.Name)
				}
			}
		}
	}
}

func receiverIsExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	exported := false
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if name, ok := n.(*ast.Ident); ok {
			exported = name.IsExported()
			return false
		}
		return !exported
	})
	return exported
}

// undocumented returns the exported names of a declaration that neither their
// group, their own comment nor a comment behind them explains.
func undocumented(d *ast.GenDecl) (names []*ast.Ident) {
	if d.Doc != nil {
		return nil
	}
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil && s.Comment == nil {
				names = append(names, s.Name)
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && s.Doc == nil && s.Comment == nil {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

func TestPolicyImports(t *testing.T) {
	for _, s := range readSources(t) {
		rule, known := layout[s.dir()]
		if !known {
			t.Errorf("%s: folder %s has no place in the layout", s.path, s.dir())
			continue
		}
		for _, spec := range s.file.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !rule.allows(s, path) {
				t.Errorf("%s: %s must not import %s", s.at(spec), s.dir(), path)
			}
		}
	}
}

func (r rule) allows(s source, path string) bool {
	own, isOwn := strings.CutPrefix(path, module+"/")
	switch {
	case isOwn:
		return s.isTest() && own == s.dir() || // an external test of the package itself
			slices.ContainsFunc(r.own, func(pattern string) bool { return matches(pattern, own) })
	case !strings.Contains(strings.Split(path, "/")[0], "."):
		return path != "C" // the standard library; cgo would end static builds
	default:
		return s.isTest() ||
			slices.ContainsFunc(r.others, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
	}
}

// matches reports whether pattern covers the package; "a/..." covers a and all below it.
func matches(pattern, pkg string) bool {
	folder, below := strings.CutSuffix(pattern, "...")
	if !below {
		return pattern == pkg
	}
	return strings.HasPrefix(pkg+"/", folder)
}

// TestPolicyCoreIsPure holds the protocol's core to what makes a failure
// repeatable from its seed: nothing in it may depend on anything but its events.
func TestPolicyCoreIsPure(t *testing.T) {
	core := []string{
		"mirror/configuration.go", "mirror/conflict.go", "mirror/differences.go", "mirror/flow.go", "mirror/follower.go",
		"mirror/lease.go", "mirror/machine.go", "mirror/members.go", "mirror/origins.go", "mirror/recent.go",
		"mirror/reconfigure.go", "mirror/resync.go", "mirror/succession.go", "mirror/window.go",
	}
	pure := []string{
		"cmp", "errors", "fmt", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings", "time",
		"lockstep/mirror/dirty", "lockstep/mirror/wire", "lockstep/mirror/internal/sabotage",
	}
	durations := []string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}
	seen := 0
	for _, s := range readSources(t) {
		if !slices.Contains(core, s.path) {
			continue
		}
		seen++
		for _, spec := range s.file.Imports {
			if path, _ := strconv.Unquote(spec.Path.Value); !slices.Contains(pure, path) {
				t.Errorf("%s: the core must not import %s", s.at(spec), path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && !slices.Contains(durations, n.Sel.Name) {
					t.Errorf("%s: the core must not know what time it is", s.at(n))
				}
			case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
				t.Errorf("%s: the core must not know goroutines", s.at(n))
			}
			return true
		})
	}
	if seen != len(core) {
		t.Errorf("found %d of the core's files %v: name them anew", seen, core)
	}
}

func TestPolicyTopLevel(t *testing.T) {
	folders := []string{"cmd", "nbd", "mirror", "wanem", "scripts"}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := os.ReadFile("../../.gitignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") || slices.Contains(folders, e.Name()) {
			continue
		}
		if skip, err := ignoredBy(string(ignored), e.Name()); err != nil || !skip {
			t.Errorf("%s: not a folder of the layout (%v)", e.Name(), err)
		}
	}
}

// ignoredBy reports whether a top-level folder matches a "/name/" line of a .gitignore.
func ignoredBy(gitignore, name string) (bool, error) {
	for line := range strings.Lines(gitignore) {
		ok, err := filepath.Match(strings.Trim(strings.TrimSpace(line), "/"), name)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
