package origin

import (
	"fmt"
	"net/http"
	"strings"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

// maxCredential bounds a credential, in bytes.
const maxCredential = 4096

// credential reads the one credential of a request: a bearer token or an API key.
func credential(r *http.Request) (bearer, apiKey string, err error) {
	authorization, keys := r.Header.Values("Authorization"), r.Header.Values("X-API-Key")
	switch {
	case len(authorization)+len(keys) == 0:
		return "", "", errUnauthorized
	case len(authorization)+len(keys) > 1:
		return "", "", errTwice
	case len(keys) == 1:
		if keys[0] == "" || len(keys[0]) > maxCredential {
			return "", "", errBadCredential
		}
		return "", keys[0], nil
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxCredential {
		return "", "", errBadCredential
	}
	return token, "", nil
}

// authOperator finds out which operator or viewer of which tenant sent a request.
func (s *Server) authOperator(r *http.Request) (tokens.Operator, error) {
	if !s.clock.Measured() {
		return tokens.Operator{}, errUnavailable
	}
	bearer, apiKey, err := credential(r)
	if err != nil {
		return tokens.Operator{}, err
	}
	if apiKey != "" {
		return tokens.Operator{}, errBadCredential
	}
	return s.verifyOperator(bearer)
}

// verifyOperator checks an operator JWT. Its sender is not told why it is refused, but the log is:
// with the reason alone, which holds no part of the token.
func (s *Server) verifyOperator(token string) (tokens.Operator, error) {
	operator, err := s.readOperator(token)
	if err != nil {
		s.log.Info("operator token refused", "reason", err)
	}
	return operator, err
}

func (s *Server) readOperator(token string) (tokens.Operator, error) {
	tenant, err := tokens.PeekIssuer(token)
	if err != nil {
		return tokens.Operator{}, fmt.Errorf("read issuer: %w", err)
	}
	own, known := s.keys.Load().tenants[tenant]
	if !known {
		return tokens.Operator{}, fmt.Errorf("verify operator: %w: its issuer is no tenant", tokens.ErrInvalid)
	}
	operator, err := own.operators.Verify(token, tenant, s.Config.PublicURL, s.clock.Now())
	if err != nil {
		return tokens.Operator{}, fmt.Errorf("verify operator: %w", err)
	}
	return operator, nil
}

// authSessions finds out for which tenant a request may end sessions, and how that is called:
// a backend with its secret API key releases them, an operator revokes them.
func (s *Server) authSessions(r *http.Request) (tenant, reason string, err error) {
	if !s.clock.Measured() {
		return "", "", errUnavailable
	}
	bearer, apiKey, err := credential(r)
	if err != nil {
		return "", "", err
	}
	if apiKey != "" {
		tenant, secret, found := s.keys.Load().findAPIKey(apiKey)
		switch {
		case !found:
			return "", "", errBadCredential
		case !secret:
			return "", "", errForbidden
		}
		return tenant, queue.ReasonReleased, nil
	}
	operator, err := s.verifyOperator(bearer)
	if err != nil {
		return "", "", err
	}
	if operator.Role != tokens.RoleOperator {
		return "", "", errForbidden
	}
	return operator.Tenant, queue.ReasonRevoked, nil
}

// authEdge lets edges in.
func (s *Server) authEdge(r *http.Request) error {
	if !isPrivate(r) {
		return errPlainHTTP
	}
	bearer, _, err := credential(r)
	if err != nil {
		return err
	}
	if bearer == "" || !s.keys.Load().isClusterSecret(bearer) {
		return errBadCredential
	}
	if !s.clock.Measured() {
		return errUnavailable
	}
	return nil
}
