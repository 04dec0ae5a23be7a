// A chat with moderation, and an assistant whose answers can be stopped. It needs only Go 1.22 or later.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	maxAge = 300 // seconds; an older request may be a repeated one
	pause  = 300 * time.Millisecond
)

var (
	api       = env("API_URL", "http://127.0.0.1:3001")
	apiKey    = os.Getenv("API_KEY")
	secret    = decode(strings.TrimPrefix(os.Getenv("SIGNING_SECRET"), "whsec_"))
	files     = env("EXAMPLE_FILES", "..") // the folder with page.html
	forbidden = []string{"darn", "heck"}
	answer    = strings.Fields("I am only an example , so I make up one word after another until I am done or you stop me .")
	running   atomic.Int64 // the calls of assistant.ask that have not ended
	client    = http.Client{Timeout: 5 * time.Second}
)

func env(name, missing string) string {
	if value, ok := os.LookupEnv(name); ok {
		return value
	}
	return missing
}

func decode(text string) []byte {
	decoded, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(decoded) == 0 {
		log.Fatalf("SIGNING_SECRET is not a secret: %v", err)
	}
	return decoded
}

// isSigned returns whether one of the signatures is that of these parts. During a rotation of the secret, there are two.
func isSigned(signatures string, parts ...[]byte) bool {
	mac := hmac.New(sha256.New, secret)
	for _, part := range parts {
		mac.Write(part)
	}
	expected := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return slices.ContainsFunc(strings.Fields(signatures), func(one string) bool { return hmac.Equal([]byte(one), expected) })
}

// isFromNode returns whether a node sent this request. Without this, anybody could claim to be any user.
func isFromNode(r *http.Request, body []byte) bool {
	id, timestamp := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
	sent, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || math.Abs(float64(time.Now().Unix()-sent)) > maxAge {
		return false
	}
	var headers []string
	for name, values := range r.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "roomcast-") && name != "roomcast-signature" {
			headers = append(headers, name+":"+values[0])
		}
	}
	slices.Sort(headers)
	lines := strings.Join(append([]string{id, timestamp, r.Method, r.URL.RequestURI()}, headers...), "\n") + "\n"
	return isSigned(r.Header.Get("webhook-signature"), []byte(id+"."+timestamp+"."), body) &&
		isSigned(r.Header.Get("roomcast-signature"), []byte(lines))
}

func publish(room, event string, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	request, err := http.NewRequest("POST", api+"/v1/rooms/"+room+"/events/"+event, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		return fmt.Errorf("the node responded with status %d", response.StatusCode)
	}
	return nil
}

// reject responds with an error. The node passes the error of a 4xx response on to the caller.
func reject(w http.ResponseWriter, message string, details map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
		"code": "INVALID_ARGUMENT", "message": message, "details": details}})
}

func send(w http.ResponseWriter, r *http.Request, body []byte) {
	text := string(body)
	if !utf8.ValidString(text) {
		reject(w, "the text is not UTF-8", map[string]any{})
		return
	}
	for _, word := range forbidden {
		if slices.Contains(strings.Fields(strings.ToLower(text)), word) {
			reject(w, fmt.Sprintf("the word %q is not allowed", word), map[string]any{"word": word})
			return
		}
	}
	from, err := url.PathUnescape(r.Header.Get("roomcast-user"))
	if from == "" || err != nil {
		from = "a guest"
	}
	if err := publish("chat", "message", map[string]string{"from": from, "text": text}); err != nil {
		log.Print(err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// ask streams an answer, word by word. When the caller cancels the call, the node closes the connection, which ends the
// request's context.
func ask(w http.ResponseWriter, r *http.Request, _ []byte) {
	running.Add(1)
	defer running.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	for _, word := range answer {
		select {
		case <-r.Context().Done():
			log.Printf("%s: cancelled", r.Header.Get("roomcast-call"))
			return
		case <-time.After(pause):
		}
		// One space follows the colon. A second one belongs to the word.
		fmt.Fprintf(w, "data:  %s\n\n", word)
		w.(http.Flusher).Flush()
	}
	fmt.Fprint(w, "event: end\n\n")
}

func countRunning(w http.ResponseWriter, _ *http.Request, _ []byte) {
	fmt.Fprint(w, running.Load())
}

// method lets only a node call a handler.
func method(handler func(http.ResponseWriter, *http.Request, []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !isFromNode(r, body) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler(w, r, body)
	}
}

func file(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, files+"/"+path) }
}

func main() {
	http.HandleFunc("POST /rpc/chat.send", method(send))
	http.HandleFunc("POST /rpc/assistant.ask", method(ask))
	http.HandleFunc("POST /rpc/assistant.running", method(countRunning))
	http.HandleFunc("GET /{$}", file("page.html"))
	http.HandleFunc("GET /client.js", file("../../crates/node/page/client.js"))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+env("PORT", "8080"), nil))
}
