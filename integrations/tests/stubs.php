<?php

// Just enough of both panels for the extensions to run. What they demand of an extension is in contracts.php.

namespace App\Traits {
    trait EnvironmentWriterTrait
    {
        public function writeToEnvironment(array $values): void
        {
            $GLOBALS['environment'] = array_merge($GLOBALS['environment'] ?? [], $values);
        }
    }
}

namespace App\Models {
    class Server
    {
        public function __construct(public string $uuid)
        {
        }
    }
}

namespace Filament {
    class Panel
    {
        public array $pages = [];

        public function pages(array $pages): static
        {
            $this->pages = $pages;

            return $this;
        }
    }
}

namespace Filament\Facades {
    class Filament
    {
        public static mixed $tenant = null;

        public static function getTenant(): mixed
        {
            return self::$tenant;
        }

        public static function auth(): object
        {
            return new class () {
                public function user(): object
                {
                    return (object) ['id' => 11];
                }
            };
        }
    }
}

namespace Filament\Forms\Components {
    class TextInput
    {
        public array $calls = [];

        public function __construct(public string $name)
        {
        }

        public static function make(string $name): self
        {
            return new self($name);
        }

        public function __call(string $name, array $arguments): self
        {
            $this->calls[$name] = $arguments;

            return $this;
        }
    }
}

namespace Filament\Notifications {
    class Notification
    {
        public static function make(): self
        {
            return new self();
        }

        public function __call(string $name, array $arguments): self
        {
            return $this;
        }
    }
}

namespace Illuminate\Contracts\Encryption {
    class DecryptException extends \RuntimeException
    {
    }

    interface Encrypter
    {
        public function encrypt($value, $serialize = true);

        public function decrypt($payload, $unserialize = true);
    }
}

namespace Illuminate\Http {
    class Request
    {
        public function __construct(private ?object $user, private array $data = [])
        {
        }

        public function user(): ?object
        {
            return $this->user;
        }

        public function validate(array $rules): array
        {
            return $this->data;
        }
    }

    class RedirectResponse
    {
        public function __construct(public string $url, public int $status = 302, public array $headers = [])
        {
        }
    }
}

namespace Symfony\Component\HttpKernel\Exception {
    class NotFoundHttpException extends \RuntimeException
    {
    }
}

namespace Pterodactyl\Http\Controllers {
    class Controller
    {
    }
}

namespace Pterodactyl\Services\Helpers {
    class SoftwareVersionService
    {
    }
}

namespace Pterodactyl\Models {
    class Egg
    {
        public static function all(): array
        {
            return [];
        }
    }

    class Rows
    {
        private array $wanted = [];

        public function __construct(private array $rows)
        {
        }

        public function where(string $column, mixed $value): self
        {
            $this->wanted[] = [$column, $value];

            return $this;
        }

        public function orWhere(string $column, mixed $value): self
        {
            return $this->where($column, $value);
        }

        public function first(): ?object
        {
            foreach ($this->rows as $row) {
                foreach ($this->wanted as [$column, $value]) {
                    if ($row->{$column} == $value) {
                        return $row;
                    }
                }
            }

            return null;
        }

        public function exists(): bool
        {
            return $this->first() !== null;
        }
    }

    class Server
    {
        public static array $all = [];

        public string $uuidShort;

        public function __construct(public string $uuid, public int $owner_id, private array $subusers = [])
        {
            $this->uuidShort = substr($uuid, 0, 8);
        }

        public static function query(): Rows
        {
            return new Rows(self::$all);
        }

        public function subusers(): Rows
        {
            return new Rows(array_map(fn ($id) => (object) ['user_id' => $id], $this->subusers));
        }
    }
}

namespace {
    function config(string $key): mixed
    {
        return $GLOBALS['config'][$key] ?? null;
    }
}
