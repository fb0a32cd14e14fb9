// The program hujson answers each line of its input, a text as a JSON string, with a line: what
// Tailscale's own reader and formatter make of it.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"

	"github.com/tailscale/hujson"
)

type answer struct {
	Error    string `json:"error"`
	Standard string `json:"standard"`
	Format   string `json:"format"`
}

func judge(text string) answer {
	standard, err := hujson.Standardize([]byte(text))
	if err != nil {
		return answer{Error: err.Error()}
	}
	format, err := hujson.Format([]byte(text))
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Standard: string(standard), Format: string(format)}
}

func main() {
	lines, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var text string
		if err := json.Unmarshal(lines.Bytes(), &text); err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(judge(text)); err != nil {
			log.Fatal(err)
		}
	}
}
