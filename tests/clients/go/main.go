// A workload that uses go-spiffe. One JSON object per line on stdout.
//
//	client x509                      the SVIDs and bundles now
//	client watch COUNT               the same at once and after each change, COUNT times
//	client source COUNT              the serial an X509Source holds, at once and after each change
//	client jwt AUDIENCE              a token of each identity, validated by the agent and by the library
//	client validate AUDIENCE         the token on stdin, validated by the agent
//	client serve PEER                a mutual TLS server for PEER: its address, then each peer
//	client dial ADDRESS PEER         one mutual TLS connection to PEER
//	client bundle DOMAIN URL ID      a bundle endpoint's bundle, authenticated as ID by the agent's bundles
//
// SPIFFE_ENDPOINT_SOCKET names the socket. Exit code 1 with {"error": …} when the answer is no.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const deadline = 60 * time.Second

type object map[string]any

func say(fields object) {
	if err := json.NewEncoder(os.Stdout).Encode(fields); err != nil {
		panic(err)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		say(object{"error": err.Error()})
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch strings.Join(args[:1], "") + strconv.Itoa(len(args)-1) {
	case "x5090":
		return x509(ctx)
	case "watch1":
		return watch(ctx, args[1])
	case "source1":
		return source(ctx, args[1])
	case "jwt1":
		return jwt(ctx, args[1])
	case "validate1":
		return validate(ctx, args[1])
	case "serve1":
		return serve(ctx, args[1])
	case "dial2":
		return dial(ctx, args[1], args[2])
	case "bundle3":
		return bundle(ctx, args[1], args[2], args[3])
	default:
		return fmt.Errorf("unknown command %q", args)
	}
}

func shown(found *workloadapi.X509Context) object {
	var svids []object
	for _, svid := range found.SVIDs {
		svids = append(svids, object{
			"id": svid.ID.String(), "serial": svid.Certificates[0].SerialNumber.Text(16),
			"chain": len(svid.Certificates), "hint": svid.Hint,
		})
	}
	bundles := object{}
	for _, bundle := range found.Bundles.Bundles() {
		bundles[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	return object{"svids": svids, "bundles": bundles}
}

func x509(ctx context.Context) error {
	found, err := workloadapi.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	bundles, err := workloadapi.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	if bundles.Len() != found.Bundles.Len() {
		return fmt.Errorf("%d bundles beside SVIDs, %d alone", found.Bundles.Len(), bundles.Len())
	}
	say(shown(found))
	return nil
}

type watcher struct {
	left int
	done context.CancelFunc
}

func (w *watcher) OnX509ContextUpdate(found *workloadapi.X509Context) {
	if w.left == 0 {
		return
	}
	say(shown(found))
	if w.left--; w.left == 0 {
		w.done()
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	if w.left > 0 {
		fmt.Fprintln(os.Stderr, "watch:", err)
	}
}

func watch(ctx context.Context, count string) error {
	left, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	w := &watcher{left: left, done: done}
	err = workloadapi.WatchX509Context(ctx, w)
	if w.left == 0 {
		return nil
	}
	return err
}

func source(ctx context.Context, count string) error {
	left, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	for ; left > 0; left-- {
		svid, err := source.GetX509SVID()
		if err != nil {
			return err
		}
		say(object{"id": svid.ID.String(), "serial": svid.Certificates[0].SerialNumber.Text(16)})
		if left == 1 {
			break
		}
		select {
		case <-source.Updated():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func jwt(ctx context.Context, audience string) error {
	source, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	svids, err := source.FetchJWTSVIDs(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	var tokens []object
	var validated []string
	for _, svid := range svids {
		token := svid.Marshal()
		byAgent, err := workloadapi.ValidateJWTSVID(ctx, token, audience)
		if err != nil {
			return err
		}
		byLibrary, err := jwtsvid.ParseAndValidate(token, source, []string{audience})
		if err != nil {
			return err
		}
		if byAgent.ID != byLibrary.ID || byAgent.ID != svid.ID {
			return errors.New("agent and library disagree")
		}
		tokens = append(tokens, object{
			"id": svid.ID.String(), "audience": svid.Audience, "token": token, "hint": svid.Hint,
		})
		validated = append(validated, byLibrary.ID.String())
	}
	set, err := workloadapi.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	bundles := object{}
	for _, bundle := range set.Bundles() {
		bundles[bundle.TrustDomain().Name()] = len(bundle.JWTAuthorities())
	}
	say(object{"tokens": tokens, "validated": validated, "bundles": bundles})
	return nil
}

func validate(ctx context.Context, audience string) error {
	token, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	svid, err := workloadapi.ValidateJWTSVID(ctx, strings.TrimSpace(string(token)), audience)
	if err != nil {
		return err
	}
	say(object{"id": svid.ID.String()})
	return nil
}

func serve(ctx context.Context, peer string) error {
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return err
	}
	listener, err := spiffetls.Listen(ctx, "tcp", "127.0.0.1:0", tlsconfig.AuthorizeID(id))
	if err != nil {
		return err
	}
	defer listener.Close()
	say(object{"address": listener.Addr().String()})
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				say(object{"refused": err.Error()})
				return
			}
			peer, err := spiffetls.PeerIDFromConn(conn)
			if err != nil {
				say(object{"refused": err.Error()})
				return
			}
			say(object{"peer": peer.String()})
			_, _ = io.WriteString(conn, "you said "+line)
		}()
	}
}

func dial(ctx context.Context, address, peer string) error {
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return err
	}
	conn, err := spiffetls.Dial(ctx, "tcp", address, tlsconfig.AuthorizeID(id))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	found, err := spiffetls.PeerIDFromConn(conn)
	if err != nil {
		return err
	}
	say(object{"peer": found.String(), "answer": strings.TrimSpace(answer)})
	return nil
}

func bundle(ctx context.Context, domain, url, endpoint string) error {
	td, err := spiffeid.TrustDomainFromString(domain)
	if err != nil {
		return err
	}
	id, err := spiffeid.FromString(endpoint)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewBundleSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	var found *spiffebundle.Bundle
	found, err = federation.FetchBundle(ctx, td, url, federation.WithSPIFFEAuth(source, id))
	if err != nil {
		return err
	}
	sequence, _ := found.SequenceNumber()
	hint, _ := found.RefreshHint()
	say(object{
		"domain": found.TrustDomain().Name(), "roots": len(found.X509Authorities()),
		"jwt_keys": len(found.JWTAuthorities()), "sequence": sequence, "refresh_hint": hint.Seconds(),
	})
	return nil
}
