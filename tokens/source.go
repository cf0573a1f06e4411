package tokens

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// Source says where a secret comes from: exactly one of the members is set.
type Source struct {
	// File is a path.
	File string `yaml:"file,omitempty" json:"file,omitempty"`
	// Env is the name of an environment variable.
	Env string `yaml:"env,omitempty" json:"env,omitempty"`
}

// maxSecret bounds a secret, in bytes; it is larger than any key set may be, so that a set that
// is too large gets the error that says so.
const maxSecret = 1 << 20

// Load reads the secret; trailing newlines are cut. An empty secret is an error.
func (s Source) Load() ([]byte, error) {
	switch {
	case s.File != "" && s.Env != "":
		return nil, errors.New("load secret: file and env are both set; give one of them")
	case s.File != "":
		return s.loadFile()
	case s.Env != "":
		text, found := os.LookupEnv(s.Env)
		if !found {
			return nil, fmt.Errorf("load secret: the environment variable %s is not set", s.Env)
		}
		secret := bytes.TrimRight([]byte(text), "\r\n")
		if len(secret) == 0 {
			return nil, fmt.Errorf("load secret: the environment variable %s is empty", s.Env)
		}
		return secret, nil
	}
	return nil, errors.New("load secret: neither file nor env is set")
}

func (s Source) loadFile() ([]byte, error) {
	file, err := os.Open(s.File)
	if err != nil {
		return nil, fmt.Errorf("load secret: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("load secret: %w", err)
	}
	if len(text) > maxSecret {
		return nil, fmt.Errorf("load secret: %s is longer than %d bytes", s.File, maxSecret)
	}
	secret := bytes.TrimRight(text, "\r\n")
	if len(secret) == 0 {
		return nil, fmt.Errorf("load secret: %s is empty", s.File)
	}
	return secret, nil
}
