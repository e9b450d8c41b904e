//! What a picture is, told from its header alone and never from its name or a Content-Type.
