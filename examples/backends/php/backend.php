<?php
// A chat with moderation, and an assistant whose answers can be stopped. It needs only PHP 8.1 or later.
// PHP runs this file once for each request. In production, a server such as nginx with PHP-FPM does so.

const MAX_AGE = 300; // seconds; an older request may be a repeated one
const FORBIDDEN = ['darn', 'heck'];
const ANSWER = 'I am only an example , so I make up one word after another until I am done or you stop me .';
const PAUSE = 300_000; // µs between two words

/** Whether one of the signatures is that of this text. During a rotation of the secret, there are two. */
function is_signed(string $signatures, string $text): bool
{
    $secret = base64_decode(substr(getenv('SIGNING_SECRET') ?: '', strlen('whsec_')));
    if ($secret === '') {
        throw new RuntimeException('SIGNING_SECRET is empty');
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', $text, $secret, binary: true));
    foreach (explode(' ', $signatures) as $signature) {
        if (hash_equals($expected, $signature)) {
            return true;
        }
    }
    return false;
}

/** Whether a node sent this request. Without this, anybody could claim to be any user. */
function is_from_node(array $headers, string $body): bool
{
    $id = $headers['webhook-id'] ?? '';
    $timestamp = $headers['webhook-timestamp'] ?? '';
    if (!ctype_digit($timestamp) || abs(time() - (int) $timestamp) > MAX_AGE) {
        return false;
    }
    $lines = "$id\n$timestamp\n{$_SERVER['REQUEST_METHOD']}\n{$_SERVER['REQUEST_URI']}\n";
    ksort($headers);
    foreach ($headers as $name => $value) {
        if (str_starts_with($name, 'roomcast-') && $name !== 'roomcast-signature') {
            $lines .= "$name:$value\n";
        }
    }
    return is_signed($headers['webhook-signature'] ?? '', "$id.$timestamp.$body")
        && is_signed($headers['roomcast-signature'] ?? '', $lines);
}

function publish(string $room, string $event, array $data): void
{
    $api = getenv('API_URL') ?: 'http://127.0.0.1:3001';
    $options = [
        'method' => 'POST',
        'header' => ['Authorization: Bearer ' . getenv('API_KEY'), 'Content-Type: application/json'],
        'content' => json_encode($data),
        'timeout' => 5,
    ];
    $context = stream_context_create(['http' => $options]);
    if (file_get_contents("$api/v1/rooms/$room/events/$event", context: $context) === false) {
        throw new RuntimeException('the node did not publish the event');
    }
}

/** Responds with an error. The node passes the error of a 4xx response on to the caller. */
function reject(string $message, array $details = []): void
{
    http_response_code(400);
    header('Content-Type: application/json');
    echo json_encode(['error' => ['code' => 'INVALID_ARGUMENT', 'message' => $message, 'details' => (object) $details]]);
}

function send_message(string $text, string $from): void
{
    if (!preg_match('//u', $text)) {
        reject('the text is not UTF-8');
        return;
    }
    foreach (FORBIDDEN as $word) {
        if (in_array($word, preg_split('/\s+/', strtolower($text)), true)) {
            reject("the word \"$word\" is not allowed", ['word' => $word]);
            return;
        }
    }
    publish('chat', 'message', ['from' => $from, 'text' => $text]);
    http_response_code(204);
}

/** Streams an answer, word by word. When the caller cancels the call, the node closes the connection, and PHP ends the script. */
function ask(string $running, string $call): void
{
    @mkdir($running);
    $file = "$running/" . bin2hex(random_bytes(8));
    touch($file);
    $is_complete = false;
    register_shutdown_function(function () use ($file, $call, &$is_complete) {
        unlink($file);
        if (!$is_complete) {
            error_log("$call: cancelled");
        }
    });
    header('Content-Type: text/event-stream');
    ob_get_level() || ob_start(); // there is no buffer if php.ini sets none
    foreach (explode(' ', ANSWER) as $word) {
        usleep(PAUSE);
        // One space follows the colon. A second one belongs to the word.
        echo "data:  $word\n\n";
        ob_flush(); // the buffer of PHP
        flush(); // the buffer of the server
    }
    echo "event: end\n\n";
    $is_complete = true;
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$files = [
    '/' => ['page.html', 'text/html; charset=utf-8'],
    '/client.js' => ['../../crates/node/page/client.js', 'text/javascript'],
];
if ($_SERVER['REQUEST_METHOD'] === 'GET' && isset($files[$path])) {
    header("Content-Type: {$files[$path][1]}");
    readfile(__DIR__ . "/../{$files[$path][0]}");
    return;
}

$headers = array_change_key_case(getallheaders());
$body = file_get_contents('php://input');
$running = sys_get_temp_dir() . '/roomcast-example-' . getenv('PORT'); // a file for each call of assistant.ask that has not ended
if (!is_from_node($headers, $body)) {
    http_response_code(401);
    return;
}
header('Content-Type: text/plain; charset=utf-8');
match ($path) {
    '/rpc/chat.send' => send_message($body, rawurldecode($headers['roomcast-user'] ?? 'a guest')),
    '/rpc/assistant.ask' => ask($running, $headers['roomcast-call']),
    '/rpc/assistant.running' => print count(glob("$running/*")),
    default => http_response_code(404),
};
