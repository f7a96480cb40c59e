-- df._checkpoint locks the claims itself.
drop function if exists df._fence_shared(text, uuid);
