"""What an answer's text must be like: grammars, checked, compiled and followed token by token. No tensors."""
