package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

// The names of the key files in a directory made by the command keys; those of a tenant are in a
// directory of its name below.
const (
	clusterFile  = "cluster.secret"
	userHashFile = "userhash.secret"
	sessionFile  = "session.private.json"
	ticketsFile  = "tickets.secret.json"
	privateFile  = "operator.private.json"
	publicFile   = "operator.public.json"
)

// makeKeys writes all key files that a first installation needs, and those of one more tenant
// where the installation has its own already. It never overwrites a file.
func makeKeys(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("keys", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory to write the key files to")
	tenant := flags.String("tenant", "", "id of the tenant")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || !queue.ValidName(*tenant) || flags.NArg() > 0 {
		return errors.New("keys: -dir DIR and -tenant ID (a-z, 0-9 and -, 1 to 63 long) are required")
	}
	own := filepath.Join(*dir, *tenant)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return fmt.Errorf("make key directory: %w", err)
	}
	for _, name := range []string{ticketsFile, privateFile, publicFile} {
		if _, err := os.Lstat(filepath.Join(own, name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keys: %s exists and is not overwritten", filepath.Join(own, name))
		}
	}
	tickets, err := tokens.GenerateTicketKeys()
	if err != nil {
		return fmt.Errorf("make ticket keys: %w", err)
	}
	private, public, err := tokens.GenerateOperatorKeys()
	if err != nil {
		return fmt.Errorf("make operator keys: %w", err)
	}
	sessions, err := tokens.GenerateSessionKeys()
	if err != nil {
		return fmt.Errorf("make session keys: %w", err)
	}
	// An installation has these once; a second tenant shares them.
	for name, content := range map[string][]byte{clusterFile: secret(), userHashFile: secret(), sessionFile: sessions} {
		if err := writeNew(filepath.Join(*dir, name), content); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for name, content := range map[string][]byte{ticketsFile: tickets, privateFile: private, publicFile: public} {
		if err := writeNew(filepath.Join(own, name), content); err != nil {
			return err
		}
	}
	absolute, err := filepath.Abs(*dir)
	if err != nil {
		return fmt.Errorf("find key directory: %w", err)
	}
	return starter.Execute(out, map[string]string{
		"Dir": absolute, "Tenant": *tenant,
		"Cluster": clusterFile, "UserHash": userHashFile, "Sessions": sessionFile,
		"Tickets": ticketsFile, "Private": privateFile, "Public": publicFile,
	})
}

// starter is a config to begin with.
var starter = template.Must(template.New("config").Parse(`# Save this as origin.yaml. Set publicURL and issuer to the addresses of your installation, and
# keep the directory of the keys where nobody but the origin can read it.
listen: 127.0.0.1:8081
publicURL: http://127.0.0.1:8081
issuer: http://127.0.0.1:8080
clusterSecret: {file: "{{.Dir}}/{{.Cluster}}"}
sessionKeys: {file: "{{.Dir}}/{{.Sessions}}"}
userHashKey: {file: "{{.Dir}}/{{.UserHash}}"}
redis:
  addresses: [127.0.0.1:6379]
tenants:
  - id: {{.Tenant}}
    ticketKeys: {file: "{{.Dir}}/{{.Tenant}}/{{.Tickets}}"}
    operatorKeys: {file: "{{.Dir}}/{{.Tenant}}/{{.Public}}"}
    # The command api-key prints a line for this list; put it in place of the [].
    apiKeys: []
# {{.Tenant}}/{{.Private}} signs operator JWTs (command operator-token). The origin does not need
# it: move it to where you sign them.
`))

// secret is 256 random bits as text.
func secret() []byte {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails
	return []byte(base64.RawURLEncoding.EncodeToString(bits[:]))
}

// writeNew writes a file that only its owner may read; fs.ErrExist when there is one.
func writeNew(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = file.Write(append(content, '\n'))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

// makeAPIKey prints a new API key, the only time that anybody sees it, and its line for the config.
func makeAPIKey(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("api-key", flag.ContinueOnError)
	kind := flags.String("kind", "", "secret (for a backend) or publishable (for an app)")
	id := flags.String("id", "", "name of the key in the config; default: one after the time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *kind != "secret" && *kind != "publishable" || flags.NArg() > 0 {
		return errors.New("api-key: -kind secret or -kind publishable is required")
	}
	if *id == "" {
		*id = *kind + "-" + time.Now().UTC().Format("20060102-150405")
	}
	key, err := tokens.NewAPIKey(*kind == "secret")
	if err != nil {
		return fmt.Errorf("make API key: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n\n# The key is shown only now. For the tenant's apiKeys in the config of the origins:\n- {id: %q, kind: %s, sha256: %s}\n",
		key, *id, *kind, tokens.HashAPIKey(key))
	return err
}

// makeOperatorToken prints an operator JWT.
func makeOperatorToken(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("operator-token", flag.ContinueOnError)
	key := flags.String("key", "", "file of the tenant's private operator keys")
	tenant := flags.String("tenant", "", "id of the tenant")
	role := flags.String("role", "viewer", "operator or viewer")
	audience := flags.String("audience", "", "publicURL of the origins")
	subject := flags.String("subject", "operator", "who will use it")
	hours := flags.Float64("hours", 12, "how long it is valid, at most 24")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *key == "" || *tenant == "" || *audience == "" || flags.NArg() > 0 {
		return errors.New("operator-token: -key FILE, -tenant ID and -audience URL are required")
	}
	if !(*hours > 0 && *hours <= 24) {
		return errors.New("operator-token: -hours is more than 0 and at most 24")
	}
	private, err := tokens.Source{File: *key}.Load()
	if err != nil {
		return err
	}
	now := time.Now()
	token, err := tokens.SignOperator(private, tokens.Operator{
		Tenant: *tenant, Subject: *subject, Role: tokens.Role(*role),
		IssuedAt: now, ExpiresAt: now.Add(time.Duration(*hours * float64(time.Hour))),
	}, *audience)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, token)
	return err
}
